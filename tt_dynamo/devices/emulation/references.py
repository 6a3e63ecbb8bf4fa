"""Values of the TTNN operations whose own golden function is missing, wrong for how we call it, or slow.

A reference takes the arguments of the TTNN call with every tensor replaced by its value (float32, or int64 for integer
dtypes; never written to) and returns the value of each result, which the caller rounds to the dtype that TTNN reported.
One that names a parameter `result` is also given what the real call returned. Arguments that say how and where to
compute (`HOW`) reach only those that name them. Each says what is amiss with TTNN's golden; `tests/devices` checks each
against torch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tt_dynamo.devices.ttnn_internals import golden_of_activation

HOW = {"compute_kernel_config", "core_grid", "dtype", "memory_config", "output_layout", "program_config"}

REFERENCES: dict[str, Callable[..., Any]] = {}


def reference(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the reference of the operations with these fully qualified TTNN names."""

    def register(compute: Callable[..., Any]) -> Callable[..., Any]:
        REFERENCES.update(dict.fromkeys(names, compute))
        return compute

    return register


def _activate(value: Tensor, activation: Any) -> Tensor:
    """Apply a fused activation: a name, a ttnn.UnaryOpType, a ttnn.UnaryWithParam or None."""
    return value if activation is None else golden_of_activation(activation)(value)


# TTNN's golden takes no bias of 2 elements, of 2 rows or of higher rank than the product, and copies a batch of one
# matrix for all.
@reference("ttnn.linear", "ttnn.matmul")
def linear(a, b, *, transpose_a=False, transpose_b=False, bias=None, activation=None, program_config=None, result):
    """activation(a b + bias); a [..., m, k], b [..., k, n], bias [..., 1, n] or of the shape of the product."""
    a = a.mT if transpose_a else a
    b = b.mT if transpose_b else b
    if b.ndim > 2 and b.shape[:-2].numel() == 1:
        b = b.flatten(0, -2)  # one matrix for the whole batch: a single large product
    output = a @ b if bias is None else a @ b + bias
    # TTNN applies the activation of the program config; the other only where that has none.
    output = _activate(output, getattr(program_config, "fused_activation", None) or activation)
    rank = len(result.shape)  # of leading dimensions of size 1, TTNN decides how many there are
    return output.reshape((1,) * (rank - output.ndim) + output.shape[-rank:])


# TTNN's golden adds the residual to its input in place.
@reference("ttnn.layer_norm")
def layer_norm(x, *, epsilon=1e-12, weight=None, bias=None, residual_input_tensor=None):
    """Ba, Kiros & Hinton 2016, https://arxiv.org/abs/1607.06450, over the last dimension."""
    x = x if residual_input_tensor is None else x + residual_input_tensor
    weight, bias = (None if affine is None else affine.flatten() for affine in (weight, bias))
    return functional.layer_norm(x, x.shape[-1:], weight, bias, epsilon)


# TTNN's goldens give back a number of rank 0, whose variance the device knows to be 0, or NaN with the correction.
@reference("ttnn.var")
def var(x, dim=None, keepdim=False, *, correction=True):
    """Variance over `dim`; `correction` is 0 or 1."""
    return torch.var(x, dim=dim if x.ndim else None, correction=int(correction), keepdim=keepdim)


@reference("ttnn.std")
def std(x, *dims, **options):
    return var(x, *dims, **options).sqrt()


# TTNN's golden copies twice, and its own rules resolve the shape (-1, Shape, padded shape) anyway.
@reference("ttnn.reshape")
def reshape(x, *_, result, **__):
    return x.reshape(tuple(result.shape))


# TTNN's golden knows no reduction.
@reference("ttnn.scatter")
def scatter(x, dim, index, source, *, reduce=None):
    """Reductions begin with what x holds and are carried out in float32."""
    if reduce is None:
        return x.scatter(dim, index, source)
    return x.scatter_reduce(dim, index, source, {"add": "sum", "multiply": "prod"}[reduce])


def _split_heads(x: Tensor, num_heads: int, num_kv_heads: int | None) -> tuple[Tensor, ...]:
    """[..., hidden], hidden being (query | key | value), → each [..., heads, head_dim]."""
    kv_heads = num_heads if num_kv_heads is None else num_kv_heads
    return x.unflatten(-1, (num_heads + 2 * kv_heads, -1)).split([num_heads, kv_heads, kv_heads], dim=-2)


# TTNN has no golden of this and of the next two.
@reference("ttnn.experimental.nlp_create_qkv_heads")
def nlp_create_qkv_heads(x, *, num_heads, num_kv_heads=None, transpose_k_heads=True):
    """[batch, 1, seq, hidden] → query, key, value [batch, heads, seq, head_dim], key transposed if so."""
    query, key, value = (part.transpose(1, 2) for part in _split_heads(x[:, 0], num_heads, num_kv_heads))
    return query, key.mT if transpose_k_heads else key, value


@reference("ttnn.experimental.nlp_create_qkv_heads_decode")
def nlp_create_qkv_heads_decode(x, *, num_heads, num_kv_heads=None):
    """[1, 1, batch, hidden] → query, key, value [1, batch, heads, head_dim]."""
    return _split_heads(x[0], num_heads, num_kv_heads)


@reference("ttnn.experimental.nlp_concat_heads")
def nlp_concat_heads(x):
    """[batch, heads, seq, head_dim] → [batch, 1, seq, heads * head_dim]."""
    return x.transpose(1, 2).flatten(2).unsqueeze(1)


# TTNN's golden knows nothing of joined heads.
@reference("ttnn.transformer.scaled_dot_product_attention")
def scaled_dot_product_attention(*query_key_value, output_concat_heads=False, **options):
    """softmax(q k^T * scale + mask) v of [batch, heads, seq, head_dim], or [batch, 1, seq, heads * head_dim]."""
    import ttnn

    attention = ttnn.transformer.scaled_dot_product_attention
    output = ttnn.get_golden_function(attention)(*query_key_value, **options)
    return nlp_concat_heads(output) if output_concat_heads else output


# TTNN's golden goes by user, and adds the mask after scaling, where the kernel scales both.
@reference("ttnn.transformer.scaled_dot_product_attention_decode")
def scaled_dot_product_attention_decode(
    query, key, value, *, is_causal=True, attn_mask=None, cur_pos_tensor=None, scale=None, sliding_window_size=None
):
    """softmax((q k^T + mask) * scale) v of one token a user.

    q [1, batch, heads, head_dim]; k and v [batch, kv heads, length, head_dim], of which no more is read than the rows
    asked for. Causal: each user reads rows up to its position, of which a window leaves the last sliding_window_size;
    a position of -1 gives zeros. Not causal: all rows, with attn_mask [batch or 1, 1, heads, length] if given.
    """
    batch, length = query.shape[1], key.shape[-2]
    positions = cur_pos_tensor.reshape(-1)[:batch] if is_causal else torch.full((batch,), length - 1)
    last, window = int(positions.max()), sliding_window_size or length
    refused = {
        "of a cache that users share": key.shape[0] != batch,
        f"at position {last} of a cache that has {length} rows": last >= length,
        # The kernel reads whole tiles, and nothing masks what pads the last one.
        f"of {length} rows, not a multiple of 32, unless causal": not is_causal and length % 32,
        "of a window unless causal": not is_causal and sliding_window_size is not None,
        "of a mask unless users are in dimension 0": attn_mask is not None and attn_mask.shape[1] != 1,
    }
    for what, is_so in refused.items():
        if is_so:
            raise NotImplementedError(f"scaled_dot_product_attention_decode {what} has no reference")
    if last < 0:
        return torch.zeros_like(query)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    first = max(0, int(positions.min()) - window + 1)
    key, value = (cache[:, :, first : last + 1] for cache in (key, value))
    # [batch, kv heads, heads of each, head_dim]: they share the rows that a product reads once.
    grouped = query[0].unflatten(1, (key.shape[1], -1))
    scores = grouped @ key.mT
    if attn_mask is not None:
        scores = scores + attn_mask[:, 0].unflatten(1, grouped.shape[1:3])[..., first : last + 1]
    rows = torch.arange(first, last + 1)
    hidden = (rows > positions[:, None]) | (rows <= positions[:, None] - window)
    scores = (scores * scale).masked_fill(hidden[:, None, None], -torch.inf)
    output = (scores.softmax(-1) @ value).flatten(1, 2)
    return output.masked_fill((positions < 0)[:, None, None], 0.0).unsqueeze(0)


# TTNN has no golden.
@reference("ttnn.experimental.rotary_embedding_hf")
def rotary_embedding_hf(x, cos, sin, *, is_decode_mode=False):
    """Su et al. 2021, https://arxiv.org/abs/2104.09864, pairing the halves of head_dim.

    Prefill: x [batch, heads, seq, head_dim], cos and sin [1, 1, at least seq, head_dim]. Decode: x [1, batch, heads,
    head_dim], cos and sin [1, batch, 1, head_dim].
    """
    if not is_decode_mode:
        cos, sin = (table[..., : x.shape[-2], :] for table in (cos, sin))
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


# TTNN has no golden.
@reference("ttnn.experimental.rotary_embedding_llama")
def rotary_embedding_llama(x, cos, sin, matrix, *, is_decode_mode=False):
    """The same where a matrix [1, 1, 32, 32] says which columns of each tile turn together.

    x [batch, heads, seq, head_dim], cos and sin [1, 1, at least seq, head_dim]; the last tile is padded with zeros.
    """
    if is_decode_mode:
        raise NotImplementedError("rotary_embedding_llama has no reference of decode")
    seq, head_dim = x.shape[-2:]
    size = matrix.shape[-1]
    tiles = functional.pad(x, (0, -head_dim % size)).unflatten(-1, (-1, size))
    turned = (tiles @ matrix).flatten(-2)[..., :head_dim]
    return x * cos[..., :seq, :] + turned * sin[..., :seq, :]


def _to_nchw(flat: Tensor, batch: int, height: int, width: int, channels: int) -> Tensor:
    return flat.reshape(batch, height, width, -1)[..., :channels].permute(0, 3, 1, 2)


def _as_given(image: Tensor, result: Any) -> Tensor:
    """An image as TTNN gives it: flattened, or where it pools in slices in DRAM, [batch, height, width, channels]."""
    image = image.permute(0, 2, 3, 1)
    return image if image.shape == tuple(result.shape) else image.flatten(0, 2)[None, None]


# TTNN has no golden.
@reference("ttnn.conv_transpose2d")
def conv_transpose2d(*, input_tensor, weight_tensor, bias_tensor=None, conv_config=None, result, **given):
    """Weights [in, out / groups, kernel height, kernel width], as given or prepared; bias [1, 1, 1, out]."""
    sizes = (given[name] for name in ("batch_size", "input_height", "input_width", "in_channels"))
    options = {name: given[name] for name in ("stride", "padding", "output_padding", "dilation") if name in given}
    output = functional.conv_transpose2d(
        _to_nchw(input_tensor, *sizes), weight_tensor, None if bias_tensor is None else bias_tensor.flatten(),
        **options, groups=given.get("groups", 1),
    )  # fmt: skip
    return _as_given(_activate(output, getattr(conv_config, "activation", None)), result)


def _pool(pool, input_tensor, batch_size, input_h, input_w, channels, *windows, result, **options):
    """TTNN takes the arguments of torch's pools, in the same order."""
    image = _to_nchw(input_tensor, batch_size, input_h, input_w, channels)
    return _as_given(pool(image, *windows, **options), result)


# TTNN's goldens import a module of TTNN's tests, which its wheel doesn't ship.
reference("ttnn.max_pool2d")(partial(_pool, functional.max_pool2d))
reference("ttnn.avg_pool2d")(partial(_pool, functional.avg_pool2d))
