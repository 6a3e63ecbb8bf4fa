"""Rotary embedding, moves by index, reductions, scans, sorting and softmax on the emulated device, against torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from rounded_once import check

from tt_dynamo.devices.emulation.references import REFERENCES

Upload = Callable[..., Any]
Random = Callable[..., torch.Tensor]


def tables(seq: int, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [1, 1, seq, head_dim] of halves that turn together, in bfloat16's numbers."""
    angles = torch.arange(seq)[:, None] * 0.1 ** torch.arange(head_dim // 2)
    return tuple(f(torch.cat((angles, angles), -1))[None, None].bfloat16().float() for f in (torch.cos, torch.sin))


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, pairs: list[tuple[int, int]]) -> torch.Tensor:
    """(a, b) of each pair as (a cos - b sin, b cos + a sin)."""
    y = x * cos
    for a, b in pairs:
        y[..., a] -= x[..., b] * sin[..., a]
        y[..., b] += x[..., a] * sin[..., b]
    return y


@pytest.mark.parametrize("seq", [32, 50])
def test_halves_turn_together(emulated: Any, upload: Upload, random: Random, seq: int) -> None:
    x = random(2, 3, seq, 64)
    cos, sin = tables(seq, 64)
    result = emulated.experimental.rotary_embedding_hf(upload(x), upload(cos), upload(sin), is_decode_mode=False)
    expected = turned(x, cos, sin, [(i, i + 32) for i in range(32)])
    torch.testing.assert_close(emulated.to_torch(result).float(), expected, rtol=2**-7, atol=2**-7)


def test_neighbours_turn_together_by_a_matrix(emulated: Any, upload: Upload, random: Random) -> None:
    x = random(1, 3, 32, 64)
    cos, sin = tables(32, 64)
    matrix = torch.zeros(1, 1, 32, 32)
    for i in range(0, 32, 2):
        matrix[0, 0, i + 1, i], matrix[0, 0, i, i + 1] = -1, 1
    result = emulated.experimental.rotary_embedding_llama(
        upload(x), upload(cos), upload(sin), upload(matrix), is_decode_mode=False
    )
    expected = turned(x, cos, sin, [(i, i + 1) for i in range(0, 64, 2)])
    torch.testing.assert_close(emulated.to_torch(result).float(), expected, rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("users", [1, 3])
def test_neighbours_of_each_user_turn_in_a_decode_step(
    emulated: Any, ttnn: Any, upload: Upload, random: Random, users: int
) -> None:
    x = random(1, users, 4, 64)
    cos, sin = (table.reshape(1, users, 1, 64) for table in tables(users, 64))
    matrix = torch.zeros(1, 1, 32, 32)
    for i in range(0, 32, 2):
        matrix[0, 0, i + 1, i], matrix[0, 0, i, i + 1] = -1, 1

    def by_user(value: torch.Tensor) -> Any:
        cores = ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(users - 1, 0))])
        spec = ttnn.ShardSpec(cores, [32, value.shape[-1]], ttnn.ShardOrientation.ROW_MAJOR)
        layout = ttnn.TensorMemoryLayout.HEIGHT_SHARDED
        return emulated.to_memory_config(upload(value), ttnn.MemoryConfig(layout, ttnn.BufferType.L1, spec))

    operands = [by_user(value) for value in (x, cos, sin, matrix.repeat(1, 1, users, 1))]
    result = emulated.experimental.rotary_embedding_llama(*operands, is_decode_mode=True)
    expected = turned(x, cos, sin, [(i, i + 1) for i in range(0, 64, 2)])
    torch.testing.assert_close(emulated.to_torch(result).float(), expected, rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("reduce", [None, "add", "multiply"])
def test_scatter_combines_what_meets_at_one_place(
    emulated: Any, ttnn: Any, upload: Upload, random: Random, reduce: str | None
) -> None:
    x, source, index = random(3, 8), random(3, 5), torch.tensor([[0, 7, 7, 2, 1]] * 3)
    expected = x.clone()
    for row in range(3):
        for column, place in enumerate(index[row].tolist()):
            old, new = expected[row, place].item(), source[row, column].item()
            expected[row, place] = new if reduce is None else old + new if reduce == "add" else old * new
    rows = ttnn.ROW_MAJOR_LAYOUT
    operands = upload(x, layout=rows), 1, upload(index, ttnn.uint32, rows), upload(source, layout=rows)
    found = emulated.scatter(*operands, reduce=reduce)
    torch.testing.assert_close(found.value, expected, rtol=1 / 256, atol=1e-6)


@pytest.mark.parametrize("dim", [None, 1, (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("correction", [False, True])
@pytest.mark.parametrize("name", ["var", "std"])
def test_spread_follows_torch(
    emulated: Any, upload: Upload, random: Random, name: str, correction: bool, dim: Any
) -> None:
    x = random(3, 5, 33)
    found = getattr(emulated, name)(upload(x), dim=dim, keepdim=True, correction=correction)
    expected = getattr(torch, name)(x, dim=(0, 1, 2) if dim is None else dim, keepdim=True, correction=int(correction))
    check(found, expected)


@pytest.mark.parametrize("name", ["var", "std"])
def test_a_single_number_spreads_by_nothing(emulated: Any, upload: Upload, name: str) -> None:
    x = upload(torch.tensor(1.5))
    assert getattr(emulated, name)(x, correction=False).value.item() == 0
    assert getattr(emulated, name)(x, correction=True).value.isnan()


def test_argmax_takes_the_first_of_equals_and_of_nan(ttnn: Any, emulated: Any, upload: Upload) -> None:
    nan = float("nan")
    x = torch.tensor([[1.0, 2.0, 2.0, 0.0], [1.0, nan, 9.0, nan], [-0.0, 0.0, -0.0, 0.0]])
    found = emulated.argmax(emulated.to_layout(upload(x), ttnn.ROW_MAJOR_LAYOUT), dim=-1)
    assert found.value.tolist() == [1, 1, 0] and found.dtype == ttnn.uint32


@pytest.mark.parametrize("descending", [False, True])
def test_sorting_keeps_equals_in_order(ttnn: Any, emulated: Any, upload: Upload, descending: bool) -> None:
    x = (torch.arange(120).reshape(3, 40) * 7 % 11).float()
    values, indices = emulated.sort(upload(x, ttnn.float32), dim=1, descending=descending, stable=True)
    expected = torch.sort(x, stable=True, dim=1, descending=descending)
    assert torch.equal(values.value, expected.values) and torch.equal(indices.value, expected.indices)
    top, places = emulated.topk(upload(x, ttnn.float32), 5, 1, descending, True, stable=True)
    assert torch.equal(top.value, expected.values[:, :5]) and torch.equal(places.value, expected.indices[:, :5])


@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_scans_in_float32_are_not_rounded(ttnn: Any, emulated: Any, upload: Upload, random: Random, name: str) -> None:
    x = random(3, 40)
    found = getattr(emulated, name)(upload(x), 1, dtype=ttnn.float32)
    assert found.dtype == ttnn.float32 and torch.equal(found.value, getattr(torch, name)(x, 1))


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_logarithms_of_softmax_and_gradients_follow_torch(
    emulated: Any, upload: Upload, random: Random, dim: int
) -> None:
    x, gradient = random(3, 5, 33), random(5, 3, 33).reshape(3, 5, 33)
    check(emulated.moreh_logsoftmax(upload(x), dim=dim), torch.log_softmax(x, dim))
    for name in ("softmax", "log_softmax"):
        output = getattr(torch, name)(x, dim).bfloat16().float()
        backward = getattr(emulated, f"moreh_{name.replace('_', '')}_backward")
        expected = getattr(torch.ops.aten, f"_{name}_backward_data")(gradient, output, dim, torch.float32)
        check(backward(upload(output), upload(gradient), dim=dim), expected)


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, 1, -1, [1, 2]])
@pytest.mark.parametrize("name", ["mean", "sum", "max", "min"])
def test_reductions_follow_torch(
    emulated: Any, upload: Upload, random: Random, name: str, dim: Any, keepdim: bool
) -> None:
    x = random(2, 50, 96)
    function: Callable[..., torch.Tensor] = {
        "mean": torch.mean,
        "sum": torch.sum,
        "max": torch.amax,
        "min": torch.amin,
    }[name]
    check(getattr(emulated, name)(upload(x), dim=dim, keepdim=keepdim), function(x, dim=dim, keepdim=keepdim))


def test_softmax(emulated: Any, upload: Upload, random: Random) -> None:
    x = random(2, 50, 96)
    check(emulated.softmax(upload(x), dim=-1), x.softmax(-1))
    check(emulated.softmax(upload(x), dim=1), x.softmax(1))


@pytest.mark.parametrize("shared", [True, False])
def test_sparse_matmul_multiplies_by_the_groups_of_its_list(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, shared: bool
) -> None:
    a, b, bias = random(3, 64) if shared else random(2, 3, 64), random(5, 64, 96), random(5, 1, 96)
    indices = torch.tensor([4, 1])
    row_major = ttnn.ROW_MAJOR_LAYOUT
    config = ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig(
        compute_with_storage_grid_size=ttnn.CoreCoord(3, 1), in0_block_w=2, out_subblock_h=1, out_subblock_w=1,
        per_core_M=1, per_core_N=1, fuse_batch=True, fused_activation=None, mcast_in0=True,
    )  # fmt: skip
    found = emulated.sparse_matmul(
        upload(a), upload(b), sparsity=upload(torch.ones(5), layout=row_major), program_config=config,
        indices=upload(indices, ttnn.uint16, layout=row_major), is_input_a_sparse=not shared, bias=upload(bias),
    )  # fmt: skip
    check(found, a @ b[indices] + bias[indices])


@pytest.mark.parametrize("has_bias", [True, False])
def test_minimal_matmul_reads_gates_and_ups_by_turns(
    emulated: Any, upload: Upload, random: Random, has_bias: bool
) -> None:
    x, gate, up, a, b = random(50, 64), random(64, 96), random(64, 96), random(96), random(96)
    by_turns = [torch.stack([y.unflatten(-1, (3, 32)) for y in pair], -2).flatten(-3) for pair in ((gate, up), (a, b))]
    bias = {"bias_tensor": upload(by_turns[1][None])} if has_bias else {}
    found = emulated.experimental.minimal_matmul(upload(x), upload(by_turns[0]), fuse_swiglu=True, **bias)
    a, b = (a, b) if has_bias else (0, 0)
    check(found, torch.nn.functional.silu(x @ gate + a) * (x @ up + b))
    check(emulated.experimental.minimal_matmul(upload(x), upload(gate)), x @ gate)


def test_a_prefix_scan_carries_its_state_from_row_to_row(random: Random) -> None:
    factors, terms, state = random(1, 1, 12, 64).sigmoid(), random(1, 1, 12, 64), random(1, 1, 1, 64)
    name = "experimental.prefix_scan"
    found = REFERENCES[f"ttnn.{name}"](factors, terms, state)
    expected, carried = [], state[..., 0, :]
    for row in range(12):
        carried = factors[..., row, :] * carried + terms[..., row, :]
        expected.append(carried)
    assert found.equal(found.bfloat16().float())
    torch.testing.assert_close(found, torch.stack(expected, -2), rtol=0.02, atol=0.05)
