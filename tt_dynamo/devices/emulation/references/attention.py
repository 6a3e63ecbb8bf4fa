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
    attention_sink: Tensor | None = None,
    cu_window_seqlens: Tensor | None = None,
    output_concat_heads: bool = False,
    **options: Any,
) -> Tensor:
    """softmax(q k^T * scale + mask) v; q [batch, heads, seq, head_dim]; k and v may have fewer heads.

    A causal window lets a position read itself and the sliding_window_size - 1 before it, another one half of that on
    each side. attention_sink [1, heads, 1, 1] is one more score of each row, scaled too (tt-metal#40470), of no value.
    """
    query, key, value = input_tensor_q, input_tensor_k, input_tensor_v
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if cu_window_seqlens is not None:
        import ttnn

        golden = ttnn.get_golden_function(ttnn.transformer.scaled_dot_product_attention)
        options.update(cu_window_seqlens=cu_window_seqlens, is_causal=is_causal, scale=scale)
        output = golden(query, key, value, **options)
    else:
        if sliding_window_size is not None:
            rows, columns = torch.arange(query.shape[-2])[:, None], torch.arange(key.shape[-2])
            reach = sliding_window_size if is_causal else sliding_window_size // 2 + 1
            visible = columns > rows - reach
            visible &= columns <= rows if is_causal else columns < rows + reach
            attn_mask, is_causal = _and(attn_mask, visible), False
        if attention_sink is not None:
            # One more key of zeros, whose score the mask sets to that of the sink, with a value of zeros.
            key, value = (functional.pad(x, (0, 0, 0, 1)) for x in (key, value))
            shape = (query.shape[0], query.shape[1], query.shape[2], key.shape[2] - 1)
            mask = torch.zeros(shape) if attn_mask is None else _additive(attn_mask).expand(shape)
            mask = mask + torch.full(shape[-2:], -torch.inf).triu(1) if is_causal else mask
            sink = attention_sink.reshape(1, -1, 1, 1).expand(*shape[:-1], 1) * scale
            attn_mask, is_causal = torch.cat([mask, sink], dim=-1), False
        grouped = query.shape[1] != key.shape[1]
        output = functional.scaled_dot_product_attention(
            query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=grouped
        )
    return nlp_concat_heads(output) if output_concat_heads else output


def _additive(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape).masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else mask


def _and(mask: Tensor | None, visible: Tensor) -> Tensor:
    return visible if mask is None else mask.masked_fill(~visible, -torch.inf)


# TTNN has no golden.
@reference("ttnn.experimental.nlp_create_qkv_heads", moves=True)
def nlp_create_qkv_heads(
    input: Tensor,
    input_kv: Tensor | None = None,
    *,
    num_heads: int,
    num_kv_heads: int | None = None,
    transpose_k_heads: bool = True,
    kv_tied: bool = False,
    **_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    """[batch, 1, seq, hidden], hidden being (q | k | v), → each [batch, heads, seq, head_dim], k transposed if so."""
    if kv_tied:
        raise NotImplementedError("nlp_create_qkv_heads with kv_tied has no reference")
    kv_heads = num_heads if num_kv_heads is None else num_kv_heads
    batch, _one, sequence, width = input.shape
    if input_kv is None:
        size = width // (num_heads + 2 * kv_heads)
        sections = input.split([num_heads * size, kv_heads * size, kv_heads * size], dim=-1)
    else:
        sections = (input, *input_kv.chunk(2, dim=-1))
    query, key, value = (
        section.reshape(batch, sequence, heads, -1).transpose(1, 2)
        for section, heads in zip(sections, (num_heads, kv_heads, kv_heads), strict=True)
    )
    return query, key.mT if transpose_k_heads else key, value


# TTNN has no golden.
@reference("ttnn.experimental.nlp_concat_heads", moves=True)
def nlp_concat_heads(input_tensor: Tensor, **_: Any) -> Tensor:
    """[batch, heads, seq, head_dim] → [batch, 1, seq, heads * head_dim]."""
    return concatenate_heads(input_tensor).unsqueeze(1)


# TTNN's golden copies the tensor three times.
@reference("ttnn.transformer.concatenate_heads", moves=True)
def concatenate_heads(input_tensor: Tensor, **_: Any) -> Tensor:
    """[batch, heads, seq, head_dim] → [batch, seq, heads * head_dim]."""
    return input_tensor.transpose(1, 2).flatten(2)


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
    attention_sink: Tensor | None = None,
    scale: float | None = None,
    sliding_window_size: int | None = None,
    share_cache: bool | None = None,
    **_: Any,
) -> Tensor:
    """softmax((q k^T + mask) * scale) v of one token a user.

    q [1, batch, heads, head_dim]; k and v [batch, kv heads, length, head_dim]. Causal: each user reads rows up to its
    position, of which a window leaves the last sliding_window_size; a position of -1 gives zeros. Not causal: all rows,
    with attn_mask [batch or 1, 1, heads, length] if given. attention_sink [heads, 32] has its score in column 0.
    """
    name = "scaled_dot_product_attention_decode"
    _one, batch, heads, head_dim = input_tensor_q.shape
    length = input_tensor_k.shape[-2]
    scale = head_dim**-0.5 if scale is None else scale
    if share_cache or input_tensor_k.shape[0] != batch:
        raise NotImplementedError(f"{name} of a cache that users share has no reference")
    if is_causal:
        listed = torch.as_tensor(cur_pos) if cur_pos_tensor is None else cur_pos_tensor.reshape(-1)
        positions = torch.where(listed == (1 << 32) - 1, -1, listed)[:batch]  # -1 of an unsigned tensor
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
    if attention_sink is None:
        weights = scores.softmax(-1)
    else:
        sink = (attention_sink[:, 0] * scale).unflatten(0, query.shape[1:3])[..., None].expand(*scores.shape[:-1], 1)
        weights = torch.cat([scores, sink], dim=-1).softmax(-1)[..., :-1]
    output = (weights @ value).flatten(1, 2)
    return output.masked_fill((positions < 0)[:, None, None], 0.0).unsqueeze(0)


# TTNN has no golden.
@reference("ttnn.experimental.nlp_create_qkv_heads_decode", moves=True)
def nlp_create_qkv_heads_decode(
    input_tensor: Tensor, *, num_heads: int, num_kv_heads: int | None = None, batch_offset: Any = None, **_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """[1, 1, batch, hidden], hidden being (q | k | v), → each [1, batch, heads, head_dim]."""
    if batch_offset is not None:
        raise NotImplementedError("nlp_create_qkv_heads_decode with batch_offset has no reference")
    kv_heads = num_heads if num_kv_heads is None else num_kv_heads
    heads = input_tensor[0].unflatten(-1, (num_heads + 2 * kv_heads, -1))
    query, key, value = heads.split([num_heads, kv_heads, kv_heads], dim=-2)
    return query, key, value


# TTNN has no golden.
@reference("ttnn.experimental.nlp_concat_heads_decode", moves=True)
def nlp_concat_heads_decode(input_tensor: Tensor, *, num_heads: int, result: Any = None, **_: Any) -> Tensor:
    """[1, batch, heads, head_dim] → [1, 1, 32, heads * head_dim]; rows beyond the batch are undefined, NaN here."""
    rows = input_tensor[:, :, :num_heads].flatten(2)[None]
    return functional.pad(rows, (0, 0, 0, result.shape[-2] - rows.shape[-2]), value=torch.nan)
