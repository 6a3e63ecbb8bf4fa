"""Operations of language models that TTNN has whole and ATen has not; see `operators` for what such an operator is."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tt_dynamo.operators import capped_attention, define, merge_heads


@define("rotary(Tensor x, Tensor cos, Tensor sin) -> Tensor")
def rotary(x, cos, sin):
    """Rotary position embedding of x [batch, heads, seq, head_dim] with cos, sin [batch or 1, 1, seq, head_dim].

    Element i of the first half turns with element i of the second, as transformers lays heads out.
    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864
    """
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


@define("rotary_by_matrix(Tensor x, Tensor cos, Tensor sin, Tensor matrix) -> Tensor")
def rotary_by_matrix(x, cos, sin, matrix):
    """The same where other elements turn together, or only some: x cos + (x @ matrix) sin.

    matrix [1, 1, n, n] says which column goes where with which sign: n is head_dim, or a tile's 32, which then stands
    for each 32 columns, of which the last may be fewer.
    """
    width, size = x.shape[-1], matrix.shape[-1]
    if size == width:
        return x * cos + torch.matmul(x, matrix) * sin
    columns = torch.nn.functional.pad(x, (0, -width % size)).unflatten(-1, (-1, size))
    return x * cos + torch.matmul(columns, matrix).flatten(-2)[..., :width] * sin


@define("update_cache(Tensor cache, Tensor x, Tensor positions) -> Tensor")
def update_cache(cache, x, positions):
    """cache [batch, heads, length, head_dim] with x [batch, heads, 1, head_dim] in row positions [1]."""
    return cache.index_copy(2, positions, x)


@define("fill_cache(Tensor cache, Tensor x) -> Tensor")
def fill_cache(cache, x):
    """cache [batch, heads, length, head_dim] with x [batch, heads, seq, head_dim] in its first rows."""
    return torch.cat([x, cache[:, :, x.shape[2] :]], 2)


@define("slide_cache(Tensor cache, Tensor x) -> Tensor")
def slide_cache(cache, x):
    """cache [batch, heads, length, head_dim] without its first row, and x [batch, heads, 1, head_dim] as its last."""
    return torch.cat([cache[:, :, 1:], x], 2)


@define("split_heads_decode(Tensor x, int num_heads, int num_kv_heads) -> (Tensor, Tensor, Tensor)")
def split_heads_decode(x, num_heads, num_kv_heads):
    """One token of each user, x [1, 1, batch, (num_heads + 2 num_kv_heads) head_dim] -> query, key, value.

    Each [1, batch, heads, head_dim].
    """
    heads = x.reshape(1, x.shape[2], num_heads + 2 * num_kv_heads, -1)
    return tuple(part.clone() for part in heads.split([num_heads, num_kv_heads, num_kv_heads], 2))


@define("by_user(Tensor x) -> Tensor")
def by_user(x):
    """x [1, batch, rows, width] with each user's rows on a core of their own, as the calls of a decode step take it."""
    return x.clone()


@define("rotary_decode(Tensor x, Tensor cos, Tensor sin) -> Tensor")
def rotary_decode(x, cos, sin):
    """`rotary` of one token of each user: x [1, batch, heads, head_dim], cos and sin [1, batch, 1, head_dim]."""
    return rotary.decompose(x, cos, sin)


@define("update_cache_decode(Tensor cache, Tensor x, Tensor positions) -> Tensor")
def update_cache_decode(cache, x, positions):
    """cache [batch, heads, length, head_dim] with x [1, batch, heads, head_dim] in row positions [batch]."""
    users = torch.arange(cache.shape[0])
    return cache.permute(0, 2, 1, 3).index_put([users, positions.long()], x[0]).permute(0, 2, 1, 3).contiguous()


@define("slide_cache_decode(Tensor cache, Tensor x, Tensor rows, Tensor positions) -> Tensor")
def slide_cache_decode(cache, x, rows, positions):
    """cache [batch, heads, length, head_dim] with its rows [batch heads, length], numbered through all heads, in place
    of those it has, then x [1, batch, heads, head_dim] in row positions [batch]."""
    moved = cache.reshape(-1, cache.shape[-1])[rows.long()].reshape(cache.shape)
    return update_cache_decode.decompose(moved, x, positions)


@define(
    "attention_decode(Tensor query, Tensor key, Tensor value, Tensor? positions, Tensor? mask, float? scale, "
    "int? window) -> Tensor"
)
def attention_decode(query, key, value, positions, mask, scale, window):
    """Attention of one token of each user to a cache, query [1, batch, heads, head_dim] -> the same shape.

    key, value [batch, kv heads, length, head_dim]. Each user sees the rows up to positions [batch], of these the last
    `window`; or all rows through the additive mask [batch or 1, 1, heads, length].
    """
    if mask is None:
        rows = torch.arange(key.shape[2])
        seen = rows <= positions[:, None]
        if window is not None:
            seen = seen & (rows > positions[:, None] - window)
        mask = seen[:, None, None]
    else:
        mask = mask.permute(0, 2, 1, 3)
    out = F.scaled_dot_product_attention(
        query.permute(1, 2, 0, 3), key, value, mask, scale=scale, enable_gqa=query.shape[2] != key.shape[1]
    )
    return out.permute(2, 0, 1, 3).contiguous()


@define(
    "capped_attention_decode(Tensor query, Tensor key, Tensor value, Tensor? mask, float scale, float cap) -> Tensor"
)
def capped_attention_decode(query, key, value, mask, scale, cap):
    """`capped_attention` of one token of each user with its heads merged, query [1, batch, heads, head_dim] ->
    [1, 1, batch, heads head_dim].

    key, value [batch, kv heads, length, head_dim]; mask [batch or 1, 1, 1, length], additive.
    """
    out = capped_attention.decompose(query.permute(1, 2, 0, 3), key, value, mask, scale, cap)
    return merge_heads.decompose(out.permute(2, 1, 0, 3))


# What makes a cache of its first operand, in its dtype: in place, or where rows move in a tensor of its own.
WRITES = frozenset({update_cache, update_cache_decode, slide_cache_decode, fill_cache})
# What becomes TTNN calls one by one where TTNN refuses the whole.
FUSED = frozenset(
    {
        rotary,
        rotary_by_matrix,
        split_heads_decode,
        rotary_decode,
        update_cache_decode,
        attention_decode,
        capped_attention_decode,
        update_cache,
        fill_cache,
        slide_cache,
        slide_cache_decode,
        by_user,
    }
)
