"""Values of the TTNN operations whose own golden function is missing, wrong for how we call it, or slow.

A reference takes the arguments of the TTNN call with every tensor replaced by its value (float32, or int64 for integer
dtypes; never written to) and returns the value of each result, which the caller rounds to the dtype that TTNN reported.
One that names a parameter `result` is also given what the real call returned, and one that names `engine` the matrix
engine as the call configures it (`fidelity.py`). Arguments that say how and where to compute (`HOW`) reach only those
that name them. Each says what is amiss with TTNN's golden; `tests/devices` checks each against torch.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .activations import activate
from .fidelity import MatrixEngine, to_bfloat16

HOW = {"compute_kernel_config", "core_grid", "dtype", "memory_config", "output_layout", "program_config"}

REFERENCES: dict[str, Callable[..., Any]] = {}


def reference(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the reference of the operations with these fully qualified TTNN names."""

    def register(compute: Callable[..., Any]) -> Callable[..., Any]:
        REFERENCES.update(dict.fromkeys(names, compute))
        return compute

    return register


# TTNN's golden takes no bias of 2 elements, of 2 rows or of higher rank than the product, and copies a batch of one
# matrix for all.
@reference("ttnn.linear", "ttnn.matmul")
def linear(
    a, b, *, transpose_a=False, transpose_b=False, bias=None, activation=None, program_config=None, result, engine
):
    """activation(a b + bias); a [..., m, k], b [..., k, n], bias [..., 1, n] or of the shape of the product."""
    a = a.mT if transpose_a else a
    b = b.mT if transpose_b else b
    if b.ndim > 2 and b.shape[:-2].numel() == 1:
        b = b.flatten(0, -2)  # one matrix for the whole batch: a single large product
    output = engine.product(a, b)
    if bias is not None:
        output = output + bias if bias.ndim > output.ndim else output.add_(bias)
    # TTNN applies the activation of the program config; the other only where that has none.
    output = activate(output, getattr(program_config, "fused_activation", None) or activation)
    rank = len(result.shape)  # of leading dimensions of size 1, TTNN decides how many there are
    return output.reshape((1,) * (rank - output.ndim) + output.shape[-rank:])


# TTNN's golden knows neither math fidelity nor the bias.
@reference("ttnn.sparse_matmul")
def sparse_matmul(a, b, *, sparsity, indices, bias=None, is_input_a_sparse=False, result, engine):
    """a [m, k] or [n, m, k] by the groups of b [E, k, out] that `indices` [n] names, plus their bias [E, 1, out]."""
    groups = indices.flatten()
    output = engine.product(a, b[groups])
    return (output if bias is None else output + bias[groups]).reshape(tuple(result.shape))


# TTNN's golden adds the residual to its input in place.
@reference("ttnn.layer_norm")
def layer_norm(x, *, epsilon=1e-12, weight=None, bias=None, residual_input_tensor=None, engine):
    """Ba, Kiros & Hinton 2016, https://arxiv.org/abs/1607.06450, over the last dimension."""
    x = x if residual_input_tensor is None else x + residual_input_tensor
    weight, bias = (None if affine is None else affine.flatten() for affine in (weight, bias))
    if engine.is_whole:
        return functional.layer_norm(x, x.shape[-1:], weight, bias, epsilon)
    return _scale(engine, x - _mean(engine, x), epsilon, weight, bias)


# TTNN's golden knows no math fidelity.
@reference("ttnn.rms_norm")
def rms_norm(x, *, epsilon=1e-12, weight=None, bias=None, residual_input_tensor=None, engine):
    """Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467, over the last dimension."""
    x = x if residual_input_tensor is None else x + residual_input_tensor
    weight, bias = (None if affine is None else affine.flatten() for affine in (weight, bias))
    if engine.is_whole:
        output = functional.rms_norm(x, x.shape[-1:], weight, epsilon)
        return output if bias is None else output + bias
    return _scale(engine, x, epsilon, weight, bias)


def _mean(engine: MatrixEngine, x: Tensor) -> Tensor:
    """Sums of rows are products by ones."""
    return engine.product(x, torch.ones(x.shape[-1], 1)) / x.shape[-1]


def _scale(engine: MatrixEngine, x: Tensor, epsilon: float, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """x over its root mean square, as the kernels compute it: a square, a sum and products, each by the engine."""
    inverse = (_mean(engine, engine.product(x, x, torch.mul)) + epsilon).rsqrt()
    output = engine.product(inverse, x, torch.mul)
    output = output if weight is None else engine.product(weight, output, torch.mul)
    return output if bias is None else output + bias


# TTNN has no golden.
@reference("ttnn.experimental.nlp_concat_heads_decode")
def concat_heads_decode(x, *, num_heads):
    """x [1, batch, heads, head_dim] → [1, 1, batch, heads head_dim]."""
    return x[:, :, :num_heads].reshape(1, 1, x.shape[1], -1)


# TTNN's golden knows no math fidelity.
@reference("ttnn.softmax")
def softmax(x, dim=-1, *, engine, **_):
    """exp(x) over its sum along `dim`, the division a product by the engine."""
    if engine.is_whole:
        return x.softmax(dim)
    powers = (x - x.amax(dim, keepdim=True)).exp().movedim(dim, -1)
    inverse = 1 / (_mean(engine, powers) * powers.shape[-1])
    return engine.product(inverse, powers, torch.mul).movedim(-1, dim)


# TTNN's golden is told by TTNN whether its input is sharded, as it must be for the transposes.
@reference("ttnn.fold")
def fold(x, *strides, use_transpose_as_fold=False, **options):
    import ttnn

    options.update(use_transpose_as_fold=use_transpose_as_fold, _ttnn_input_is_sharded=use_transpose_as_fold)
    return ttnn.get_golden_function(ttnn.fold)(x, *strides, **options)


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
    """With a padded shape, rows and columns of x may become padding."""
    shape = tuple(result.shape)
    return x.reshape(shape) if x.numel() == math.prod(shape) else x[tuple(map(slice, shape))]


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


# TTNN has no golden of this and of the next three.
@reference("ttnn.experimental.nlp_create_qkv_heads")
def nlp_create_qkv_heads(x, *, num_heads, num_kv_heads=None, transpose_k_heads=True):
    """[batch, 1, seq, hidden] → query, key, value [batch, heads, seq, head_dim], key transposed if so."""
    query, key, value = (part.transpose(1, 2) for part in _split_heads(x[:, 0], num_heads, num_kv_heads))
    return query, key.mT if transpose_k_heads else key, value


@reference("ttnn.experimental.nlp_create_qkv_heads_vit")
def nlp_create_qkv_heads_vit(x, *, result):
    """[batch, 1, seq, 3 * 12 * 64] → query, key, value [batch, 12, seq in whole tiles, 64].

    What pads the rows of x, which is not known here, is in rows of the results.
    """
    x = functional.pad(x, (0, 0, 0, result[0].shape[-2] - x.shape[-2]), value=math.nan)
    return nlp_create_qkv_heads(x, num_heads=12, transpose_k_heads=False)


@reference("ttnn.experimental.nlp_create_qkv_heads_decode")
def nlp_create_qkv_heads_decode(x, *, num_heads, num_kv_heads=None, overlap_qk_coregrid=True):
    """[1, 1, batch, hidden] → query, key, value [1, batch, heads, head_dim]."""
    return _split_heads(x[0], num_heads, num_kv_heads)


@reference("ttnn.experimental.nlp_concat_heads")
def nlp_concat_heads(x):
    """[batch, heads, seq, head_dim] → [batch, 1, seq, heads * head_dim]."""
    return x.transpose(1, 2).flatten(2).unsqueeze(1)


def _scores(engine: MatrixEngine, query: Tensor, key: Tensor) -> Tensor:
    """What the kernels of attention hold in bfloat16."""
    scores = engine.product(query, key.mT)
    return scores if engine.is_whole else to_bfloat16(scores)


def _weigh(engine: MatrixEngine, scores: Tensor, value: Tensor) -> Tensor:
    """softmax(scores) value. The kernels hold weights and product in bfloat16 and divide last, by a product."""
    if engine.is_whole:
        return scores.softmax(-1) @ value
    weights = to_bfloat16((scores - scores.amax(-1, keepdim=True)).exp())
    product = to_bfloat16(engine.product(weights, value))
    return engine.product(1 / weights.sum(-1, keepdim=True), product, torch.mul)


# TTNN's golden knows nothing of joined heads.
@reference("ttnn.transformer.scaled_dot_product_attention")
def scaled_dot_product_attention(query, key, value, *, output_concat_heads=False, engine, **options):
    """softmax(q k^T * scale + mask) v of [batch, heads, seq, head_dim], or [batch, 1, seq, heads * head_dim]."""
    import ttnn

    if engine.is_whole:
        attention = ttnn.transformer.scaled_dot_product_attention
        output = ttnn.get_golden_function(attention)(query, key, value, **options)
    else:
        output = _attend(engine, query, key, value, **options)
    return nlp_concat_heads(output) if output_concat_heads else output


def _attend(engine, query, key, value, *, attn_mask=None, is_causal=True, scale=None, sliding_window_size=None):
    """The same by the products of the engine. A window of no causal attention reaches half of its size both ways."""
    length, keys = query.shape[-2], key.shape[-2]
    grouped = query.unflatten(1, (key.shape[1], -1))
    scores = _scores(engine, grouped, key.unsqueeze(2)).flatten(1, 2) * (scale or query.shape[-1] ** -0.5)
    ahead = torch.arange(keys) - torch.arange(max(0, keys - length), max(keys, length))[:, None]
    hidden = (ahead > 0) if is_causal else torch.zeros(length, keys, dtype=torch.bool)
    if sliding_window_size is not None:
        hidden |= ahead <= -sliding_window_size if is_causal else ahead.abs() > sliding_window_size // 2
    scores = scores.masked_fill(hidden, -torch.inf)
    scores = scores if attn_mask is None else scores + attn_mask[..., :length, :keys]
    return _weigh(engine, scores.unflatten(1, grouped.shape[1:3]), value.unsqueeze(2)).flatten(1, 2)


# TTNN's golden goes by user, and adds the mask after scaling, where the kernel scales both.
@reference("ttnn.transformer.scaled_dot_product_attention_decode")
def scaled_dot_product_attention_decode(
    query, key, value, *, is_causal=True, attn_mask=None, cur_pos_tensor=None, scale=None, sliding_window_size=None,
    engine,
):  # fmt: skip
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
    scores = _scores(engine, grouped, key)
    if attn_mask is not None:
        scores = scores + attn_mask[:, 0].unflatten(1, grouped.shape[1:3])[..., first : last + 1]
    rows = torch.arange(first, last + 1)
    hidden = (rows > positions[:, None]) | (rows <= positions[:, None] - window)
    scores = (scores * scale).masked_fill(hidden[:, None, None], -torch.inf)
    output = _weigh(engine, scores, value).flatten(1, 2)
    return output.masked_fill((positions < 0)[:, None, None], 0.0).unsqueeze(0)


# TTNN has no golden.
@reference("ttnn.experimental.rotary_embedding_hf")
def rotary_embedding_hf(x, cos, sin, *, is_decode_mode=False, engine):
    """Su et al. 2021, https://arxiv.org/abs/2104.09864, pairing the halves of head_dim.

    Prefill: x [batch, heads, seq, head_dim], cos and sin [1, 1, at least seq, head_dim]. Decode: x [1, batch, heads,
    head_dim], cos and sin [1, batch, 1, head_dim].
    """
    if not is_decode_mode:
        cos, sin = (table[..., : x.shape[-2], :] for table in (cos, sin))
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return engine.product(cos, x, torch.mul) + engine.product(sin, turned, torch.mul)


# TTNN has no golden.
@reference("ttnn.experimental.rotary_embedding_llama")
def rotary_embedding_llama(x, cos, sin, matrix, *, is_decode_mode=False, engine):
    """The same where a matrix [1, 1, 32, 32] says which columns of each tile turn together.

    x [batch, heads, seq, head_dim], cos and sin [1, 1, at least seq, head_dim]; the last tile is padded with zeros.
    Decode: shapes as above, and the tile of the matrix once for each user, [1, 1, 32 batch, 32].
    """
    seq, head_dim = x.shape[-2:]
    size = matrix.shape[-1]
    tiles = functional.pad(x, (0, -head_dim % size)).unflatten(-1, (-1, size))
    if is_decode_mode:
        turned = engine.product(tiles, matrix.reshape(1, -1, 1, size, size))
    else:
        turned = engine.product(tiles, matrix)
        cos, sin = (table[..., :seq, :] for table in (cos, sin))
    turned = turned.flatten(-2)[..., :head_dim]
    return engine.product(cos, x, torch.mul) + engine.product(sin, turned, torch.mul)


_IMAGE = ("batch_size", "input_height", "input_width", "in_channels")


def _to_nchw(flat: Tensor, batch: int, height: int, width: int, channels: int) -> Tensor:
    return flat.reshape(batch, height, width, -1)[..., :channels].permute(0, 3, 1, 2)


def _as_given(image: Tensor, result: Any) -> Tensor:
    """An image as TTNN gives it: flattened, or where it pools in slices in DRAM, [batch, height, width, channels]."""
    image = image.permute(0, 2, 3, 1)
    return image if image.shape == tuple(result.shape) else image.flatten(0, 2)[None, None]


def _finish_convolution(output: Tensor, bias: Tensor | None, conv_config: Any, result: Any) -> Tensor:
    output = output if bias is None else output.add_(bias.reshape(-1, 1, 1))
    return _as_given(activate(output, getattr(conv_config, "activation", None)), result)


# TTNN's golden knows no math fidelity.
@reference("ttnn.conv2d")
def conv2d(*, input_tensor, weight_tensor, bias_tensor=None, conv_config=None, padding=0, result, engine, **given):
    """Weights [out, in / groups, kernel height, kernel width], as given or prepared; bias [1, 1, 1, out]."""
    padding = (padding, padding) if isinstance(padding, int) else tuple(padding)
    top, bottom, left, right = padding if len(padding) == 4 else (padding[0], padding[0], padding[1], padding[1])
    image = functional.pad(_to_nchw(input_tensor, *(given[name] for name in _IMAGE)), (left, right, top, bottom))
    options = {name: given[name] for name in ("stride", "dilation", "groups") if name in given}
    if engine.float32:
        output = engine.product(image, weight_tensor, partial(functional.conv2d, **options))
    else:
        output = _convolve_as_matmul(engine, image, weight_tensor, **options)
    return _finish_convolution(output, bias_tensor, conv_config, result)


def _convolve_as_matmul(engine: MatrixEngine, image: Tensor, weight: Tensor, stride=1, dilation=1, groups=1) -> Tensor:
    """As the device does: a matmul whose inner dimension is (kernel height, kernel width, channels of a group)."""
    size, channels = weight.shape[2:], weight.shape[1]
    patches = functional.unfold(image, size, dilation=dilation, stride=stride).unflatten(1, (groups, channels, -1))
    patches = patches.permute(0, 1, 4, 3, 2).flatten(3)  # [batch, groups, pixels, inner]
    rows = weight.flatten(2).unflatten(0, (groups, -1)).permute(0, 3, 2, 1).flatten(1, 2)  # [groups, inner, out]
    output = engine.product(patches, rows).mT.flatten(1, 2)
    height = functional.conv2d(image[:1, :1], weight[:1, :1], stride=stride, dilation=dilation).shape[-2]
    return output.unflatten(2, (height, -1))


# TTNN has no golden. Its sums are those of float32 also where bfloat16 accumulates.
@reference("ttnn.conv_transpose2d")
def conv_transpose2d(*, input_tensor, weight_tensor, bias_tensor=None, conv_config=None, result, engine, **given):
    """Weights [in, out / groups, kernel height, kernel width], as given or prepared; bias [1, 1, 1, out]."""
    image = _to_nchw(input_tensor, *(given[name] for name in _IMAGE))
    names = ("stride", "padding", "output_padding", "dilation", "groups")
    options = {name: given[name] for name in names if name in given}
    output = engine.product(image, weight_tensor, partial(functional.conv_transpose2d, **options))
    return _finish_convolution(output, bias_tensor, conv_config, result)


def _pool(pool, input_tensor, batch_size, input_h, input_w, channels, *windows, result, **options):
    """TTNN takes the arguments of torch's pools, in the same order."""
    image = _to_nchw(input_tensor, batch_size, input_h, input_w, channels)
    return _as_given(pool(image, *windows, **options), result)


# TTNN's goldens import a module of TTNN's tests, which its wheel doesn't ship.
reference("ttnn.max_pool2d")(partial(_pool, functional.max_pool2d))
reference("ttnn.avg_pool2d")(partial(_pool, functional.avg_pool2d))


# TTNN has no golden. The kernel keeps the state in bfloat16, and leaves the last one where the initial one lay.
@reference("ttnn.experimental.prefix_scan")
def prefix_scan(a, bx, h_prev):
    """h[t] = a[t] h[t - 1] + bx[t] along the rows of a, bx [1, 1, tokens, width], from h_prev [1, 1, 1, width]."""
    state, states = to_bfloat16(h_prev[..., 0, :]), []
    for factor, term in zip(to_bfloat16(a).unbind(-2), to_bfloat16(bx).unbind(-2), strict=True):
        state = to_bfloat16(to_bfloat16(factor * state) + term)
        states.append(state)
    return torch.stack(states, -2)
