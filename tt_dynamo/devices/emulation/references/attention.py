"""References of attention and of what splits and merges its heads: in prefill, and in decode, of one token a user.

Decode reads no more of a cache than the rows up to the positions asked for: a step stays cheap, however long the cache.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .elementwise import reference

_TILE = 32


# --- prefill --------------------------------------------------------------------------------------------------------


# TTNN's golden computes and keeps every score in steps of its own: the same values several times slower.
@reference("ttnn.transformer.scaled_dot_product_attention")
def scaled_dot_product_attention(
    input_tensor_q: Tensor,
    input_tensor_k: Tensor,
    input_tensor_v: Tensor,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = True,
    scale: float | None = None,
    sliding_window_size: int | None = None,
    output_concat_heads: bool = False,
    program_config: Any = None,
    compute_kernel_config: Any = None,
) -> Tensor:
    """softmax(q k^T * scale + mask) v; q [batch, heads, seq, head_dim]; k and v may have fewer heads.

    A causal window lets a position read itself and the sliding_window_size - 1 before it.
    """
    query, key, value = input_tensor_q, input_tensor_k, input_tensor_v
    if sliding_window_size is not None:
        if attn_mask is not None or not is_causal:
            raise NotImplementedError("scaled_dot_product_attention of a window has no reference unless causal alone")
        positions = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool)
        attn_mask, is_causal = positions.tril().triu(1 - sliding_window_size), False
    grouped = query.shape[1] != key.shape[1]
    output = functional.scaled_dot_product_attention(
        query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=grouped
    )
    return nlp_concat_heads(output) if output_concat_heads else output


# TTNN has no golden.
@reference("ttnn.experimental.nlp_create_qkv_heads", moves=True)
def nlp_create_qkv_heads(
    input: Tensor, *, num_heads: int, num_kv_heads: int | None = None, transpose_k_heads: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """[batch, 1, seq, hidden], hidden being (q | k | v), → each [batch, heads, seq, head_dim], k transposed if so."""
    kv_heads = num_heads if num_kv_heads is None else num_kv_heads
    size = input.shape[-1] // (num_heads + 2 * kv_heads)
    sections = input.split([num_heads * size, kv_heads * size, kv_heads * size], dim=-1)
    query, key, value = (section[:, 0].unflatten(-1, (-1, size)).transpose(1, 2) for section in sections)
    return query, key.mT if transpose_k_heads else key, value


# TTNN has no golden.
@reference("ttnn.experimental.nlp_concat_heads", moves=True)
def nlp_concat_heads(input_tensor: Tensor, **_: Any) -> Tensor:
    """[batch, heads, seq, head_dim] → [batch, 1, seq, heads * head_dim]."""
    return input_tensor.transpose(1, 2).flatten(2).unsqueeze(1)


# --- decode ---------------------------------------------------------------------------------------------------------


# TTNN's golden goes by user, and adds the mask after scaling, where the kernel scales both.
@reference("ttnn.transformer.scaled_dot_product_attention_decode")
def scaled_dot_product_attention_decode(
    input_tensor_q: Tensor,
    input_tensor_k: Tensor,
    input_tensor_v: Tensor,
    *,
    is_causal: bool = True,
    attn_mask: Tensor | None = None,
    cur_pos: Sequence[int] = (),
    cur_pos_tensor: Tensor | None = None,
    scale: float | None = None,
    sliding_window_size: int | None = None,
    program_config: Any = None,
    compute_kernel_config: Any = None,
) -> Tensor:
    """softmax((q k^T + mask) * scale) v of one token a user.

    q [1, batch, heads, head_dim]; k and v [batch, kv heads, length, head_dim]. Causal: each user reads rows up to its
    position, of which a window leaves the last sliding_window_size; a position of -1 gives zeros. Not causal: all rows,
    with attn_mask [batch or 1, 1, heads, length] if given.
    """
    name = "scaled_dot_product_attention_decode"
    _one, batch, heads, head_dim = input_tensor_q.shape
    length = input_tensor_k.shape[-2]
    scale = head_dim**-0.5 if scale is None else scale
    if input_tensor_k.shape[0] != batch:
        raise NotImplementedError(f"{name} of a cache that users share has no reference")
    if is_causal:
        positions = (torch.as_tensor(cur_pos) if cur_pos_tensor is None else cur_pos_tensor.reshape(-1))[:batch]
        last = int(positions.max())
        if last >= length:
            raise NotImplementedError(f"{name} at position {last} of a cache that has {length} rows has no reference")
    elif length % _TILE:
        # The kernel reads whole tiles, and nothing masks what pads the last one.
        raise NotImplementedError(f"{name} of {length} rows, not a multiple of 32, has no reference unless causal")
    elif sliding_window_size is not None:
        raise NotImplementedError(f"{name} of a window has no reference unless causal")
    else:
        positions, last = torch.full((batch,), length - 1), length - 1
    window = length if sliding_window_size is None else sliding_window_size
    first = max(0, int(positions.min()) - window + 1)
    if last < 0:
        return torch.zeros_like(input_tensor_q)
    key, value = (cache[:, :, first : last + 1] for cache in (input_tensor_k, input_tensor_v))
    # [batch, kv heads, heads of each, head_dim]: they share the rows that a product reads once.
    query = input_tensor_q[0].unflatten(1, (key.shape[1], -1))
    scores = query @ key.mT
    if attn_mask is not None:
        if attn_mask.shape[1] != 1:
            raise NotImplementedError(f"{name} takes a mask [batch or 1, 1, heads, length]: users are in dimension 0")
        scores = scores + attn_mask[:, 0].unflatten(1, query.shape[1:3])[..., first : last + 1]
    scores = scores * scale
    if is_causal:
        rows = torch.arange(first, last + 1)
        hidden = (rows > positions[:, None]) | (rows <= positions[:, None] - window)
        if hidden.any():
            scores = scores.masked_fill(hidden[:, None, None], -torch.inf)
    output = (scores.softmax(-1) @ value).flatten(1, 2)
    return output.masked_fill((positions < 0)[:, None, None], 0.0).unsqueeze(0)


# TTNN has no golden.
@reference("ttnn.experimental.nlp_create_qkv_heads_decode", moves=True)
def nlp_create_qkv_heads_decode(
    input_tensor: Tensor, *, num_heads: int, num_kv_heads: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """[1, 1, batch, hidden], hidden being (q | k | v), → each [1, batch, heads, head_dim]."""
    kv_heads = num_heads if num_kv_heads is None else num_kv_heads
    heads = input_tensor[0].unflatten(-1, (num_heads + 2 * kv_heads, -1))
    query, key, value = heads.split([num_heads, kv_heads, kv_heads], dim=-2)
    return query, key, value
