"""Reference semantics of TTNN operations whose own golden function is missing, wrong for how we call it, or slow.

A reference takes the arguments of the TTNN call with every tensor replaced by its value (float32, or int64 for integer
dtypes; never written to) and returns the value of each result, which the caller rounds to the dtype TTNN reported. One
that declares `result` is also given the tensor, or list of tensors, that the real call returned. Each says what is
amiss with TTNN's golden; `tests/devices` checks each against torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Reference:
    compute: Callable[..., Any]
    moves: bool  # only moves elements, so that a result of the inputs' float dtype needs no rounding
    takes_result: bool


REFERENCES: dict[str, Reference] = {}


def reference(*names: str, moves: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the reference of the operations with these fully qualified TTNN names."""

    def register(compute: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            if name in REFERENCES:
                raise ValueError(f"{name} has a reference already")
            REFERENCES[name] = Reference(compute, moves, "result" in signature(compute).parameters)
        return compute

    return register


def _activate(value: Tensor, activation: Any) -> Tensor:
    from ttnn.operations.activations import get_golden_function_for_activation

    return value if activation is None else get_golden_function_for_activation(activation)(value)


def _without_leading_ones(value: Tensor, shape: Sequence[int]) -> Tensor:
    """`value` with leading dimensions of size 1 dropped or added until its rank is that of `shape`."""
    while value.ndim > len(shape) and value.shape[0] == 1:
        value = value[0]
    while value.ndim < len(shape):
        value = value[None]
    return value


# TTNN's golden takes a bias of 2 elements for a matrix with 2 rows, adds it in place, and leaves a leading 1 of a
# higher-rank bias in the result.
@reference("ttnn.linear", "ttnn.matmul")
def linear(
    input_tensor_a: Tensor,
    input_tensor_b: Tensor,
    transpose_a: bool = False,
    transpose_b: bool = False,
    *,
    bias: Tensor | None = None,
    activation: Any = None,
    program_config: Any = None,
    result: Any = None,
    **_: Any,
) -> Tensor:
    a = input_tensor_a.mT if transpose_a else input_tensor_a
    b = input_tensor_b.mT if transpose_b else input_tensor_b
    if b.numel() == b.shape[-2] * b.shape[-1] if b.ndim > 2 else False:
        b = b.reshape(b.shape[-2:])  # one matrix for all: a single large product
    row = bias.reshape(-1) if bias is not None and bias.numel() == b.shape[-1] else None
    output = functional.linear(a, b.mT, row) if b.ndim == 2 else torch.matmul(a, b)
    if bias is not None and (row is None or b.ndim != 2):
        output = output + (bias if row is None else row)
    # An activation in the program config is the fused one; TTNN then ignores the argument.
    output = _activate(output, getattr(program_config, "fused_activation", None) or activation)
    return _without_leading_ones(output, result.shape)


# TTNN's golden adds the residual to its input in place.
@reference("ttnn.layer_norm")
def layer_norm(
    input_tensor: Tensor,
    *,
    epsilon: float = 1e-12,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    residual_input_tensor: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """Ba, Kiros & Hinton 2016, https://arxiv.org/abs/1607.06450, over the last dimension."""
    if residual_input_tensor is not None:
        input_tensor = input_tensor + residual_input_tensor
    width = input_tensor.shape[-1]
    weight, bias = (None if t is None else t.reshape(-1)[:width] for t in (weight, bias))
    return functional.layer_norm(input_tensor, (width,), weight, bias, epsilon)


# TTNN's golden returns None in fast mode, because the device's result is then only close to gelu.
@reference("ttnn.gelu")
def gelu(input_tensor: Tensor, *_: Any, variant: Any = None, **__: Any) -> Tensor:
    """Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415; only variant=Tanh is the tanh approximation."""
    tanh = getattr(variant, "name", None) == "Tanh"
    return functional.gelu(input_tensor, approximate="tanh" if tanh else "none")


# TTNN's golden materializes every score in several steps; torch's fused kernel computes the same several times faster.
@reference("ttnn.transformer.scaled_dot_product_attention")
def scaled_dot_product_attention(
    input_tensor_q: Tensor,
    input_tensor_k: Tensor,
    input_tensor_v: Tensor,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = True,
    scale: float | None = None,
    **options: Any,
) -> Tensor:
    """softmax(q k^T * scale + mask) v; q [batch, heads, seq, head_dim], k and v may have fewer heads."""
    uncommon = ("sliding_window_size", "attention_sink", "cu_window_seqlens")
    if any(options.get(name) is not None for name in uncommon):
        import ttnn

        golden = ttnn.get_golden_function(ttnn.transformer.scaled_dot_product_attention)
        return golden(
            input_tensor_q, input_tensor_k, input_tensor_v, attn_mask=attn_mask, is_causal=is_causal, scale=scale,
            **options,
        )  # fmt: skip
    groups = input_tensor_q.shape[1] // input_tensor_k.shape[1]
    if groups > 1:
        input_tensor_k = input_tensor_k.repeat_interleave(groups, dim=1)
        input_tensor_v = input_tensor_v.repeat_interleave(groups, dim=1)
    return functional.scaled_dot_product_attention(
        input_tensor_q, input_tensor_k, input_tensor_v, attn_mask=attn_mask, is_causal=is_causal, scale=scale
    )


# TTNN has no golden.
@reference("ttnn.experimental.nlp_create_qkv_heads", moves=True)
def nlp_create_qkv_heads(
    input_tensor: Tensor,
    input_tensor_kv: Tensor | None = None,
    *,
    num_heads: int | None = None,
    num_q_heads: int | None = None,
    num_kv_heads: int | None = None,
    transpose_k_heads: bool = True,
    **_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """[batch, 1, seq, (q | k | v) hidden] → q, k, v as [batch, heads, seq, head_dim]; k transposed if asked."""
    queries = num_heads if num_heads is not None else num_q_heads
    assert queries is not None
    keys = queries if num_kv_heads is None else num_kv_heads
    batch, _one, sequence, width = input_tensor.shape
    if input_tensor_kv is None:
        size = width // (queries + 2 * keys)
        sections = input_tensor.split([queries * size, keys * size, keys * size], dim=-1)
    else:
        sections = (input_tensor, *input_tensor_kv.chunk(2, dim=-1))
    query, key, value = (
        section.reshape(batch, sequence, heads, -1).transpose(1, 2)
        for section, heads in zip(sections, (queries, keys, keys), strict=True)
    )
    return query, key.mT if transpose_k_heads else key, value


# TTNN has no golden.
@reference("ttnn.experimental.nlp_concat_heads", moves=True)
def nlp_concat_heads(input_tensor: Tensor, **_: Any) -> Tensor:
    """[batch, heads, seq, head_dim] → [batch, 1, seq, heads * head_dim]."""
    return input_tensor.transpose(1, 2).flatten(2).unsqueeze(1)


# TTNN's golden copies the tensor four times.
@reference("ttnn.transformer.concatenate_heads", moves=True)
def concatenate_heads(input_tensor: Tensor, **_: Any) -> Tensor:
    """[batch, heads, seq, head_dim] → [batch, seq, heads * head_dim]."""
    return input_tensor.transpose(1, 2).flatten(2)


# TTNN's golden reads one position of the cache, as in decode, even where no token index is given.
@reference("ttnn.experimental.rotary_embedding")
def rotary_embedding(
    input_tensor: Tensor,
    cos_cache: Tensor,
    sin_cache: Tensor,
    token_index: int | None = None,
    *_: Any,
    token_idx: int | None = None,
    result: Any = None,
    **__: Any,
) -> Tensor:
    """Su et al. 2021, https://arxiv.org/abs/2104.09864, with the halves of head_dim as pairs.

    TTNN's result has a sequence length that is a multiple of its tile; the rows added are zero here.
    """
    index = token_index if token_index is not None else token_idx
    rows = slice(0, input_tensor.shape[-2]) if index is None else slice(index, index + 1)
    first, second = input_tensor.chunk(2, dim=-1)
    rotated = torch.cat((-second, first), dim=-1)
    output = input_tensor * cos_cache[..., rows, :] + rotated * sin_cache[..., rows, :]
    return functional.pad(output, (0, 0, 0, result.shape[-2] - output.shape[-2]))


# TTNN prepares the arguments of its golden with a real read of the tensor, which the mock answers with zeros.
@reference("ttnn.pad", moves=True)
def pad(input_tensor: Tensor, padding: Any, *rest: Any, value: float = 0.0, **_: Any) -> Tensor:
    """Pairs of (front, back) for the trailing dimensions; or TTNN's older (padded shape, start, value)."""
    if padding and isinstance(padding[0], int):
        start, *more = rest
        pairs = [(at, size - at - old) for size, at, old in zip(padding, start, input_tensor.shape, strict=True)]
    else:
        pairs, more = list(padding), list(rest)
    flat = [amount for pair in reversed(pairs) for amount in pair]
    return functional.pad(input_tensor, flat, value=more[0] if more else value)


# TTNN prepares the arguments of its golden from TTNN tensors.
@reference("ttnn.typecast", "ttnn.to_dtype")
def typecast(input_tensor: Tensor, *_: Any, result: Any = None, **__: Any) -> Tensor:
    """A float to uint16 rounds to nearest, to other integers truncates; negative numbers to unsigned clamp at zero."""
    if input_tensor.dtype.is_floating_point and result.dtype.name in ("UINT16", "UINT32"):
        rounded = torch.floor(input_tensor + 0.5) if result.dtype.name == "UINT16" else input_tensor.trunc()
        return rounded.clamp(0, 65535 if result.dtype.name == "UINT16" else 2**32 - 1)
    return input_tensor


# TTNN's golden copies; identity on the logical elements is all these do.
@reference(
    "ttnn.to_layout", "ttnn.to_memory_config", "ttnn.to_device", "ttnn.from_device", "ttnn.clone", "ttnn.reallocate",
    "ttnn.move", "ttnn.untilize", "ttnn.tilize", "ttnn.fill_implicit_tile_padding", "ttnn.interleaved_to_sharded",
    "ttnn.sharded_to_interleaved", "ttnn.reshard", "ttnn.tilize_with_zero_padding", "ttnn.tilize_with_val_padding",
    moves=True,
)  # fmt: skip
def identity(input_tensor: Tensor, *_: Any, **__: Any) -> Tensor:
    return input_tensor


# TTNN's golden copies twice; the real call has already resolved a -1.
@reference(
    "ttnn.reshape", "ttnn.view", "ttnn.squeeze", "ttnn.unsqueeze", "ttnn.unsqueeze_to_4D", "ttnn.experimental.view",
    moves=True,
)  # fmt: skip
def reshape(input_tensor: Tensor, *_: Any, result: Any = None, **__: Any) -> Tensor:
    return input_tensor.reshape(tuple(result.shape))


# TTNN has no golden for the uninitialized ones, whose contents are undefined: zeros here.
@reference("ttnn.zeros", "ttnn.empty", "ttnn.allocate_tensor_on_device", "ttnn.empty_like")
def zeros(*_: Any, result: Any = None, **__: Any) -> Tensor:
    return torch.zeros(tuple(result.shape))


# TTNN's golden imports a module that its wheel doesn't ship.
@reference("ttnn.max_pool2d")
def max_pool2d(
    input_tensor: Tensor,
    batch_size: int,
    input_h: int,
    input_w: int,
    channels: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
    **_: Any,
) -> Tensor:
    """Input and result [1, 1, batch * height * width, channels]; padding (h, w) or (top, bottom, left, right)."""
    image = input_tensor.reshape(batch_size, input_h, input_w, -1)[..., :channels].permute(0, 3, 1, 2)
    top, bottom, left, right = padding if len(padding) == 4 else (padding[0], padding[0], padding[1], padding[1])
    image = functional.pad(image, (left, right, top, bottom), value=float("-inf"))
    output = functional.max_pool2d(image, tuple(kernel_size), tuple(stride), 0, tuple(dilation), ceil_mode)
    return output.permute(0, 2, 3, 1).reshape(1, 1, -1, channels)
