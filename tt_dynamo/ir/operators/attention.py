"""Attention, its heads, their positions and its masks, of whole sequences and of one token of each user."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Node

from tt_dynamo.ir.operators.definition import FUSED, define


@define("Tensor x, int num_heads, int num_kv_heads", FUSED, gives="(Tensor, Tensor, Tensor)")
def split_heads(x, num_heads, num_kv_heads):
    """x [batch, 1, seq, (num_heads + 2 num_kv_heads) head_dim] -> query, key, value [batch, heads, seq, head_dim]."""
    batch, _, seq, width = x.shape
    head_dim = width // (num_heads + 2 * num_kv_heads)
    heads = x.reshape(batch, seq, num_heads + 2 * num_kv_heads, head_dim).permute(0, 2, 1, 3)
    query, key, value = heads.split([num_heads, num_kv_heads, num_kv_heads], 1)
    return query.clone(), key.clone(), value.clone()


@define("Tensor x, int num_heads", FUSED)
def split_lone_heads(x, num_heads):
    """x [batch, 1, seq, num_heads head_dim] -> query, key or value [batch, num_heads, seq, head_dim]."""
    batch, _, seq, width = x.shape
    return x.reshape(batch, seq, num_heads, width // num_heads).permute(0, 2, 1, 3).contiguous()


@define("Tensor x, int num_heads", FUSED, gives="(Tensor, Tensor)")
def split_key_value(x, num_heads):
    """x [batch, 1, seq, num_heads (key, value) head_dim] -> key, value [batch, num_heads, seq, head_dim]."""
    batch, _, seq, width = x.shape
    heads = x.reshape(batch, seq, num_heads, width // num_heads).permute(0, 2, 1, 3)
    key, value = heads.chunk(2, -1)
    return key.clone(), value.clone()


def splits_shards(node: Node) -> bool:
    """Whether a node is a split of heads that TTNN has a kernel for which reads block shards: 12 heads of 64."""
    if node.target is not split_heads:
        return False
    x, num_heads, num_kv_heads = node.args
    return num_heads == num_kv_heads == 12 and x.meta["val"].shape[-1] == 3 * 12 * 64


@define("Tensor query, Tensor key, Tensor value, Tensor? mask, bool is_causal, float? scale, int? window=None", FUSED)
def attention(query, key, value, mask, is_causal, scale, window=None):
    """Attention with its heads merged: query [batch, heads, seq, head_dim] ... -> [batch, 1, seq, heads head_dim].

    key and value may have fewer heads, each for as many consecutive heads of queries. window: how many keys a causal
    query reads, the last one at its own place.
    """
    return _attend(F.scaled_dot_product_attention, query, key, value, mask, is_causal, scale, window)


def _attend(attend, query, key, value, mask, is_causal, scale, window=None):
    """`attention` by a function with the arguments of torch's scaled dot product attention."""
    if window is not None:
        near = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        mask, is_causal = near.triu(1 - window), False
    grouped = query.shape[1] != key.shape[1]
    return merge_heads.decompose(attend(query, key, value, mask, 0.0, is_causal, scale=scale, enable_gqa=grouped))


JOINT = ", ".join(f"Tensor {name}{stream}" for stream in (1, 2) for name in ("query", "key", "value"))


@define(f"{JOINT}, float? scale", FUSED, gives="(Tensor, Tensor)")
def joint_attention(query1, key1, value1, query2, key2, value2, scale):
    """Attention of two streams [batch, heads, rows, head_dim] to both, of each [batch, 1, rows, heads head_dim].

    Source: Esser et al. 2024, https://arxiv.org/abs/2403.03206
    """
    query, key, value = (torch.cat(both, 2) for both in ((query1, query2), (key1, key2), (value1, value2)))
    merged = attention.decompose(query, key, value, None, False, scale)
    first, second = merged.split([query1.shape[2], query2.shape[2]], 2)
    return first.clone(), second.clone()


@define("Tensor x", FUSED)
def merge_heads(x):
    """x [batch, heads, seq, head_dim] -> [batch, 1, seq, heads head_dim]."""
    batch, heads, seq, head_dim = x.shape
    return x.permute(0, 2, 1, 3).reshape(batch, 1, seq, heads * head_dim)


@define("Tensor query, Tensor key, Tensor value, Tensor? mask, float scale, float cap", FUSED)
def capped_attention(query, key, value, mask, scale, cap):
    """softmax(cap tanh(query keyᵀ scale / cap) + mask) value -> [batch, heads, seq, head_dim].

    key and value may have fewer heads, each for as many consecutive heads of queries.
    Source: Gemma Team 2024, https://arxiv.org/abs/2408.00118
    """
    batch, heads, seq, head_dim = query.shape
    kv_heads = key.shape[1]
    rows = query.reshape(batch, kv_heads, heads // kv_heads * seq, head_dim)
    scores = (torch.tanh(torch.matmul(rows, key.mT) * (scale / cap)) * cap).reshape(batch, heads, seq, -1)
    weights = torch.softmax(scores if mask is None else scores + mask, -1)
    return torch.matmul(weights.reshape(batch, kv_heads, rows.shape[2], -1), value).reshape(query.shape)


@define("Tensor mask, Tensor? zeros=None, bool may_hide_all=False", FUSED)
def attention_mask(mask, zeros=None, may_hide_all=False):
    """The additive mask that attention reads, broadcast with `zeros` to [batch or 1, heads or 1, query, key].

    may_hide_all: whether a query may read no key, as one that is padding. Torch gives zeros for it.
    """
    return mask.clone() if zeros is None else mask + zeros


@define("Tensor query, Tensor key, Tensor value, float eps", FUSED)
def linear_attention(query, key, value, eps):
    """query (keyᵀ value) / (query keyᵀ 1 + eps) -> [..., query length, head_dim]: no softmax, and no scores.

    query [..., query length, head_dim]; key, value [..., key length, head_dim].
    Source: Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236
    """
    weights = torch.matmul(query, key.sum(-2, keepdim=True).transpose(-1, -2))
    return torch.matmul(query, torch.matmul(key.transpose(-1, -2), value)) / (weights + eps)


@define("Tensor x, int num_heads, int num_kv_heads, bool apart=False", FUSED, gives="(Tensor, Tensor, Tensor)")
def split_heads_decode(x, num_heads, num_kv_heads, apart=False):
    """One token of each user, x [1, 1, batch, (num_heads + 2 num_kv_heads) head_dim] -> query, key, value.

    Each [1, batch, heads, head_dim]. apart: whether keys may lie on other cores than queries and values.
    """
    heads = x.reshape(1, x.shape[2], num_heads + 2 * num_kv_heads, -1)
    return tuple(part.clone() for part in heads.split([num_heads, num_kv_heads, num_kv_heads], 2))


@define("Tensor x, int? users=None, bool apart=False", FUSED)
def by_user(x, users=None, apart=False):
    """x [1, batch, rows, width] with each user's rows on a core of their own, as the calls of a decode step take it.

    Or x [1, 1, users rows, width] of so many users. apart: on those of keys that are split apart.
    """
    return x.clone()


@define("Tensor query, Tensor key, Tensor value, Tensor? positions, Tensor? mask, float? scale, int? window", FUSED)
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


@define("Tensor query, Tensor key, Tensor value, Tensor? mask, float scale, float cap", FUSED)
def capped_attention_decode(query, key, value, mask, scale, cap):
    """`capped_attention` of one token of each user with its heads merged, query [1, batch, heads, head_dim] ->
    [1, 1, batch, heads head_dim].

    key, value [batch, kv heads, length, head_dim]; mask [batch or 1, 1, 1, length], additive.
    """
    out = capped_attention.decompose(query.permute(1, 2, 0, 3), key, value, mask, scale, cap)
    return merge_heads.decompose(out.permute(2, 1, 0, 3))


@define("Tensor x, Tensor cos, Tensor sin", FUSED)
def rotary(x, cos, sin):
    """Rotary position embedding of x [batch, heads, seq, head_dim] with cos, sin [batch or 1, 1, seq, head_dim].

    Element i of the first half turns with element i of the second, as transformers lays heads out.
    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864
    """
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


@define("Tensor x, Tensor cos, Tensor sin, Tensor matrix", FUSED)
def rotary_by_matrix(x, cos, sin, matrix):
    """The same where other elements turn together, or only some: x cos + (x @ matrix) sin.

    matrix [1, 1, n, n] says which column goes where with which sign: n is head_dim, or a tile's 32, which then stands
    for each 32 columns, of which the last may be fewer.
    """
    width, size = x.shape[-1], matrix.shape[-1]
    if size == width:
        return x * cos + torch.matmul(x, matrix) * sin
    columns = F.pad(x, (0, -width % size)).unflatten(-1, (-1, size))
    return x * cos + torch.matmul(columns, matrix).flatten(-2)[..., :width] * sin


@define("Tensor x, Tensor cos, Tensor sin", FUSED)
def rotary_decode(x, cos, sin):
    """`rotary` of one token of each user: x [1, batch, heads, head_dim], cos and sin [1, batch, 1, head_dim]."""
    return rotary.decompose(x, cos, sin)


@define("Tensor x, Tensor cos, Tensor sin, Tensor matrix", FUSED)
def rotary_by_matrix_decode(x, cos, sin, matrix):
    """`rotary_by_matrix` of one token of each user: x [1, batch, heads, head_dim], cos and sin [1, batch, 1, head_dim].

    matrix [1, 1, 32 batch, 32] has the same tile for each user.
    """
    return rotary_by_matrix.decompose(x, cos, sin, matrix[:, :, : matrix.shape[3]])


def attention_by_parts(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """torch's scaled dot product attention as products and a softmax, 0 for queries that read no key."""
    if query.shape[-3:-2] != key.shape[-3:-2]:
        times = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    scores = torch.matmul(query, key.mT) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is None:
        weights = torch.softmax(scores, -1)
    else:
        masked = torch.where(attn_mask, scores, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
        weights = torch.ops.aten._safe_softmax.default(masked, -1)
    return torch.matmul(torch.dropout(weights, dropout_p, True) if dropout_p else weights, value)


# Attention by the functions that compute it by parts where TTNN refuses it whole.
BY_PARTS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: attention_by_parts,
    attention: functools.partial(_attend, attention_by_parts),
}
