"""Every operation that programs call, against torch: shape, dtype and values.

Inputs are exact in bfloat16, and results may differ from torch's float32 by bfloat16's rounding alone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rounded_once import check
from torch.nn import functional

from tt_dynamo.devices.emulation.references import REFERENCES

Upload = Callable[..., Any]
Random = Callable[..., torch.Tensor]


def heads(x: torch.Tensor, count: int) -> torch.Tensor:
    """[batch, seq, hidden] → [batch, heads, seq, head_dim]."""
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


# --- linear and matmul ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias_shape", [(20,), (1, 20), (1, 1, 1, 20), (50, 20)])
def test_linear_adds_the_bias_once_whatever_its_rank(
    emulated: Any, upload: Upload, random: Random, bias_shape: tuple[int, ...]
) -> None:
    a, b, bias = random(50, 40), random(40, 20), random(*bias_shape)
    check(emulated.linear(upload(a), upload(b), bias=upload(bias)), a @ b + bias)


def test_linear_takes_a_bias_of_two_elements(emulated: Any, upload: Upload, random: Random) -> None:
    a, b, bias = random(2, 8), random(8, 2), random(2)
    check(emulated.linear(upload(a), upload(b), bias=upload(bias)), a @ b + bias)


def test_linear_leaves_its_inputs_alone(emulated: Any, upload: Upload, random: Random) -> None:
    tensors = [upload(random(32, 32)), upload(random(32, 32)), upload(random(1, 32))]
    before = [tensor.value.clone() for tensor in tensors]
    emulated.linear(*tensors[:2], bias=tensors[2], activation="relu")
    assert all(torch.equal(tensor.value, value) for tensor, value in zip(tensors, before, strict=True))


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [
        ((2, 3, 50, 40), (40, 20)),
        ((2, 3, 50, 40), (1, 1, 40, 20)),
        ((2, 3, 50, 40), (2, 3, 40, 20)),
        ((40,), (40, 20)),
        ((50, 40), (40,)),
        ((40,), (40,)),
    ],
)
def test_matmul_follows_torch(
    emulated: Any, upload: Upload, random: Random, a_shape: tuple[int, ...], b_shape: tuple[int, ...]
) -> None:
    a, b = random(*a_shape), random(*b_shape)
    check(emulated.matmul(upload(a), upload(b)), a @ b)


def test_matmul_keeps_the_rank_that_ttnn_gives(emulated: Any, upload: Upload, random: Random) -> None:
    a, b = random(50, 40), random(1, 1, 40, 20)
    check(emulated.matmul(upload(a), upload(b)), a @ b)


def test_matmul_transposes(emulated: Any, upload: Upload, random: Random) -> None:
    a, b = random(40, 50), random(20, 40)
    check(emulated.matmul(upload(a), upload(b), transpose_a=True, transpose_b=True), a.T @ b.T)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", functional.relu), ("gelu", functional.gelu), ("silu", functional.silu), ("tanh", torch.tanh),
        ("gelu_tanh", lambda x: functional.gelu(x, approximate="tanh")), ("sigmoid", torch.sigmoid),
    ],
)  # fmt: skip
def test_linear_applies_its_activation(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, activation: str, function: Callable[..., torch.Tensor]
) -> None:
    a, b = random(2, 50, 40), random(40, 20)
    grid = ttnn.CoreGrid(y=8, x=8)
    check(emulated.linear(upload(a), upload(b), activation=activation, core_grid=grid), function(a @ b))


# --- normalization and attention ------------------------------------------------------------------------------------


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("affine_shape", [(96,), (1, 96), (1, 1, 96)])
def test_layer_norm(
    emulated: Any, upload: Upload, random: Random, residual: bool, affine_shape: tuple[int, ...]
) -> None:
    x, r, weight, bias = random(2, 50, 96), random(2, 50, 96), random(*affine_shape), random(*affine_shape)
    options = {"residual_input_tensor": upload(r)} if residual else {}
    found = emulated.layer_norm(upload(x), weight=upload(weight), bias=upload(bias), epsilon=1e-5, **options)
    check(found, functional.layer_norm(x + r if residual else x, (96,), weight.flatten(), bias.flatten(), 1e-5))


def test_rms_norm(emulated: Any, upload: Upload, random: Random) -> None:
    x, weight = random(2, 50, 96), random(96)
    check(
        emulated.rms_norm(upload(x), weight=upload(weight), epsilon=1e-6), functional.rms_norm(x, (96,), weight, 1e-6)
    )


@pytest.mark.parametrize("option", [{}, {"fast_and_approximate_mode": True}, {"variant": "Tanh"}])
def test_gelu(ttnn: Any, emulated: Any, upload: Upload, random: Random, option: dict[str, Any]) -> None:
    x = random(2, 50, 96)
    expected = functional.gelu(x, approximate="tanh" if "variant" in option else "none")
    options = {"variant": ttnn.GeluVariant.Tanh} if "variant" in option else option
    check(emulated.gelu(upload(x), **options), expected)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("mask", [None, (1, 1, 50, 70), (2, 1, 50, 70), (2, 8, 50, 70)])
def test_attention_with_mask_scale_and_grouped_heads(
    emulated: Any, upload: Upload, random: Random, mask: tuple[int, ...] | None, scale: float | None
) -> None:
    q, k, v = random(2, 8, 50, 64), random(2, 2, 70, 64), random(2, 2, 70, 64)
    m = None if mask is None else random(*mask)
    found = emulated.transformer.scaled_dot_product_attention(
        upload(q), upload(k), upload(v), attn_mask=None if m is None else upload(m), is_causal=False, scale=scale
    )
    scores = q @ k.repeat_interleave(4, 1).mT * (64**-0.5 if scale is None else scale)
    check(found, (scores if m is None else scores + m).softmax(-1) @ v.repeat_interleave(4, 1))


def test_attention_is_causal_unless_told_otherwise(emulated: Any, upload: Upload, random: Random) -> None:
    q, k, v = random(1, 2, 64, 32), random(1, 2, 64, 32), random(1, 2, 64, 32)
    found = emulated.transformer.scaled_dot_product_attention(upload(q), upload(k), upload(v))
    check(found, functional.scaled_dot_product_attention(q, k, v, is_causal=True))


def test_attention_can_join_the_heads(emulated: Any, upload: Upload, random: Random) -> None:
    q, k, v = random(2, 2, 64, 32), random(2, 2, 64, 32), random(2, 2, 64, 32)
    found = emulated.transformer.scaled_dot_product_attention(
        upload(q), upload(k), upload(v), is_causal=False, output_concat_heads=True
    )
    check(found, functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 1, 64, 64))


def test_attention_with_a_causal_window_reads_no_further_back(emulated: Any, upload: Upload, random: Random) -> None:
    q, k, v = random(1, 2, 64, 32), random(1, 2, 64, 32), random(1, 2, 64, 32)
    found = emulated.transformer.scaled_dot_product_attention(
        upload(q), upload(k), upload(v), is_causal=True, sliding_window_size=32
    )
    distance = torch.arange(64)[:, None] - torch.arange(64)
    visible = (distance >= 0) & (distance < 32)
    check(found, functional.scaled_dot_product_attention(q, k, v, visible))


@pytest.mark.parametrize("transpose", [False, True])
def test_nlp_create_qkv_heads(emulated: Any, upload: Upload, random: Random, transpose: bool) -> None:
    x = random(2, 1, 50, (8 + 2 + 2) * 32)
    found = emulated.experimental.nlp_create_qkv_heads(
        upload(x), num_heads=8, num_kv_heads=2, transpose_k_heads=transpose
    )
    q, k, v = x[:, 0].split([256, 64, 64], dim=-1)
    for tensor, expected in zip(found, (heads(q, 8), heads(k, 2), heads(v, 2)), strict=True):
        check(tensor, expected.mT if transpose and tensor is found[1] else expected)


def test_heads_of_a_vit_keep_what_pads_their_rows_until_a_view_drops_it(
    ttnn: Any, emulated: Any, upload: Upload, random: Random
) -> None:
    x = random(2, 1, 50, 3 * 12 * 64)
    found = emulated.experimental.nlp_create_qkv_heads_vit(upload(x), memory_config=ttnn.L1_MEMORY_CONFIG)
    for tensor, part in zip(found, x[:, 0].chunk(3, dim=-1), strict=True):
        assert tuple(tensor.shape) == (2, 12, 64, 64)
        view = emulated.reshape(tensor, (2, 12, 50, 64), (2, 12, 64, 64))
        assert view.buffer_address() == tensor.buffer_address()
        check(view, heads(part, 12))


@pytest.mark.parametrize("transpose", [False, True])
def test_split_query_key_value_and_split_heads(emulated: Any, upload: Upload, random: Random, transpose: bool) -> None:
    x = random(2, 50, 3 * 128)
    found = emulated.transformer.split_query_key_value_and_split_heads(upload(x), num_heads=4, transpose_key=transpose)
    q, k, v = (heads(part, 4) for part in x.chunk(3, dim=-1))
    for tensor, expected in zip(found, (q, k.mT if transpose else k, v), strict=True):
        check(tensor, expected)


def test_heads_are_joined(emulated: Any, upload: Upload, random: Random) -> None:
    x = random(2, 4, 50, 32)
    joined = x.transpose(1, 2).reshape(2, 50, 128)
    check(emulated.transformer.concatenate_heads(upload(x)), joined)
    check(emulated.experimental.nlp_concat_heads(upload(x)), joined[:, None])


# --- moving and making ----------------------------------------------------------------------------------------------


def test_what_only_changes_layout_or_place_keeps_the_values(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, device: Any
) -> None:
    x = random(2, 50, 96)
    tiles = upload(x)
    rows = emulated.to_layout(tiles, ttnn.ROW_MAJOR_LAYOUT)
    results = [
        rows, emulated.to_layout(rows, ttnn.TILE_LAYOUT), emulated.to_memory_config(tiles, ttnn.L1_MEMORY_CONFIG),
        emulated.clone(tiles), emulated.fill_implicit_tile_padding(tiles, 0.0),
        emulated.to_device(emulated.from_torch(x, ttnn.bfloat16), device.handle),
    ]  # fmt: skip
    for found in results:
        check(found, x)


def test_a_layout_change_that_also_changes_the_dtype_rounds(ttnn: Any, emulated: Any, upload: Upload) -> None:
    x = upload(torch.full((32, 32), 1 / 3), ttnn.float32)
    found = emulated.to_memory_config(x, ttnn.L1_MEMORY_CONFIG, dtype=ttnn.bfloat16)
    assert found.dtype == ttnn.bfloat16
    check(found, torch.full((32, 32), 1 / 3).bfloat16())


def test_reshapes_follow_torch(emulated: Any, ttnn: Any, upload: Upload, random: Random) -> None:
    x = random(2, 32, 64)
    a = upload(x)
    check(emulated.reshape(a, (-1, 64)), x.reshape(-1, 64))
    check(emulated.reshape(a, ttnn.Shape([4, 16, 64])), x.reshape(4, 16, 64))
    check(emulated.permute(a, (2, 0, 1)), x.permute(2, 0, 1))
    check(emulated.transpose(a, 0, 2), x.transpose(0, 2))


def test_pad_slice_concat_expand_and_repeat_follow_torch(emulated: Any, upload: Upload, random: Random) -> None:
    x = random(2, 32, 64)
    a = upload(x)
    check(emulated.pad(a, [(0, 0), (0, 3), (0, 5)], 0.0), functional.pad(x, (0, 5, 0, 3)))
    check(emulated.pad(a, [(0, 3), (0, 5)], value=0.1), functional.pad(x, (0, 5, 0, 3), value=0.1))
    square = emulated.reshape(a, (1, 2, 32, 64))
    check(emulated.pad(square, [1, 2, 40, 64], [0, 0, 0, 0], 1.0), functional.pad(x[None], (0, 0, 0, 8), value=1.0))
    check(emulated.slice(a, [0, 0, 2], [2, 31, 64]), x[:, :31, 2:])
    check(emulated.slice(a, [0, 0, 0], [2, 32, 64], [1, 2, 1]), x[:, ::2])
    check(emulated.concat([a, a], dim=-1), torch.cat([x, x], -1))
    check(emulated.expand(upload(x[:1]), [3, 32, 64]), x[:1].expand(3, 32, 64))
    check(emulated.repeat(a, [1, 2, 1]), x.repeat(1, 2, 1))


def test_fold_gathers_patches(ttnn: Any, emulated: Any, upload: Upload, random: Random) -> None:
    """[batch, H, W, C] → [batch, H / 16, W / 16, 16 * 16 * C] with a patch ordered (row, column, channel)."""
    x = random(2, 32, 48, 4)
    expected = x.reshape(2, 2, 16, 3, 16, 4).transpose(2, 3).reshape(2, 2, 3, -1)
    check(emulated.fold(upload(x, layout=ttnn.ROW_MAJOR_LAYOUT), 16, 16), expected)
    rows = upload(x.reshape(2, 32, 3, 64), layout=ttnn.ROW_MAJOR_LAYOUT)
    check(emulated.fold(rows, 16, 1), expected)


def test_embedding_looks_rows_up(ttnn: Any, emulated: Any, upload: Upload, random: Random) -> None:
    table, index = random(70, 96), torch.tensor([[0, 69, 5], [5, 1, 2]])
    found = emulated.embedding(
        upload(index, ttnn.uint32, ttnn.ROW_MAJOR_LAYOUT), upload(table, layout=ttnn.ROW_MAJOR_LAYOUT),
        layout=ttnn.TILE_LAYOUT,
    )  # fmt: skip
    check(found, table[index])


def test_tensors_are_made_with_their_values(ttnn: Any, emulated: Any, device: Any) -> None:
    options = {"dtype": ttnn.bfloat16, "layout": ttnn.TILE_LAYOUT, "device": device.handle}
    check(emulated.full((2, 3), 1.5, **options), torch.full((2, 3), 1.5))
    check(emulated.full((2, 3), fill_value=0.1, **options), torch.full((2, 3), 0.1))
    check(emulated.ones((2, 3), **options), torch.ones(2, 3))
    check(emulated.arange(0, 10, 2, dtype=ttnn.int32, device=device.handle), torch.arange(0, 10, 2))


@pytest.mark.parametrize("target", ["float32", "bfloat16", "int32", "uint32", "uint16"])
def test_typecast(ttnn: Any, emulated: Any, upload: Upload, target: str) -> None:
    x = torch.tensor([[0.0, 1.25, 2.5, 300.0, 65024.0]])
    rounded = {"int32": x.trunc(), "uint32": x.trunc(), "uint16": torch.floor(x + 0.5)}.get(target, x)
    found = emulated.typecast(upload(x), getattr(ttnn, target))
    assert found.dtype == getattr(ttnn, target)
    check(found, rounded)


# --- elementwise -----------------------------------------------------------------------------------------------------

UNARY: dict[str, Callable[..., torch.Tensor]] = {
    "relu": functional.relu, "silu": functional.silu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "exp": torch.exp,
    "erf": torch.erf, "rsqrt": torch.rsqrt, "sqrt": torch.sqrt, "neg": torch.neg, "abs": torch.abs, "cos": torch.cos,
    "sin": torch.sin, "log": torch.log, "reciprocal": torch.reciprocal, "square": torch.square,
    "hardswish": functional.hardswish, "relu6": functional.relu6, "logical_not": torch.logical_not,
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_unary_operations_follow_torch(emulated: Any, upload: Upload, random: Random, name: str) -> None:
    x = random(2, 50, 96)
    x = x.abs() if name in ("rsqrt", "sqrt", "log") else x
    check(getattr(emulated, name)(upload(x)), UNARY[name](x))


BINARY: dict[str, Callable[..., torch.Tensor]] = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "eq": torch.eq, "ne": torch.ne,
    "lt": torch.lt, "gt": torch.gt, "le": torch.le, "ge": torch.ge, "maximum": torch.maximum,
    "minimum": torch.minimum, "logical_and": torch.logical_and, "logical_or": torch.logical_or,
}  # fmt: skip


@pytest.mark.parametrize("name", BINARY)
def test_binary_operations_follow_torch_and_broadcast(emulated: Any, upload: Upload, random: Random, name: str) -> None:
    x, y = random(2, 50, 96), random(2, 1, 96)
    check(getattr(emulated, name)(upload(x), upload(y)), BINARY[name](x, y))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "eq", "ne", "lt", "gt", "le", "ge"])
def test_binary_operations_take_a_number(emulated: Any, upload: Upload, random: Random, name: str) -> None:
    x = random(2, 50, 96)
    check(getattr(emulated, name)(upload(x), 0.5), BINARY[name](x, torch.tensor(0.5)))


def test_binary_operations_apply_activations(ttnn: Any, emulated: Any, upload: Upload, random: Random) -> None:
    x, y = random(2, 50, 96), random(2, 50, 96)
    silu, relu = ttnn.UnaryOpType.SILU, ttnn.UnaryOpType.RELU
    check(emulated.mul(upload(x), upload(y), input_tensor_a_activations=[silu]), functional.silu(x) * y)
    check(emulated.add(upload(x), upload(y), activations=[relu]), functional.relu(x + y))


def test_integers_are_exact(ttnn: Any, emulated: Any, upload: Upload) -> None:
    x, y = torch.tensor([[2**30 + 1, -7, 3]]), torch.tensor([[1, 2, -4]])
    a, b = upload(x, ttnn.int32), upload(y, ttnn.int32)
    for found, expected in ((emulated.add(a, b), x + y), (emulated.sub(a, b), x - y), (emulated.mul(a, b), x * y)):
        assert torch.equal(found.value, expected)


def test_where_selects(ttnn: Any, emulated: Any, upload: Upload, random: Random) -> None:
    x, y = random(2, 50, 96), random(2, 50, 96)
    condition = emulated.gt(upload(x), 0.0)
    check(emulated.where(condition, upload(x), upload(y)), torch.where(x > 0, x, y))
    check(emulated.where(condition, upload(x), -1.0), torch.where(x > 0, x, -1.0))


def test_every_reference_is_tested() -> None:
    """A reference of ours is only as good as its comparison with torch."""
    text = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("test_references*.py")))
    names = {name: name.removeprefix("ttnn.") for name in REFERENCES}
    calls = {name: (f"emulated.{short}(", f"emulated.{short}\n", f'"{short}"') for name, short in names.items()}
    called = [name for name in names if any(call in text for call in calls[name])]
    assert set(REFERENCES) == set(called)
