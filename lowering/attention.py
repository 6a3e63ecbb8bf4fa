"""Attention and its heads: fused or ATen node → TTNN calls."""

from __future__ import annotations

from tt_dynamo.lowering import workarounds
from tt_dynamo.lowering.registry import lower

from tt_dynamo import operators
from tt_dynamo.graph import Unsupported, aten

# Larger chunks read keys and values fewer times; TTNN's default of 32 costs up to 3.75 times as much:
# https://github.com/tenstorrent/tt-metal/issues/51911. The largest that TTNN accepts for the shape is taken.
CHUNK_SIZES = (256, 128, 64, 32)


@lower(aten.scaled_dot_product_attention.default)
def attention(
    ttnn, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """softmax(query keyᵀ scale + attn_mask) value.

    query [batch, heads, query length, head_dim]; key, value [batch, kv heads, key length, head_dim].
    Source: Dao 2023, https://arxiv.org/abs/2307.08691
    """
    if dropout_p:
        raise Unsupported("attention with dropout: TTNN's attention has none")
    head_dim = query.shape[-1]
    scale = head_dim**-0.5 if scale is None else scale
    if head_dim % workarounds.TILE:  # refused by TTNN; zeros add nothing to a dot product, and the scale is given
        padding = [(0, 0), (0, 0), (0, 0), (0, -head_dim % workarounds.TILE)]
        query, key, value = (ttnn.pad(x, padding, 0.0) for x in (query, key, value))
    longest = max(query.shape[2], key.shape[2])
    sizes = [size for size in CHUNK_SIZES if size < 2 * longest] or [CHUNK_SIZES[-1]]
    for index, size in enumerate(sizes):
        program_config = ttnn.SDPAProgramConfig(
            compute_with_storage_grid_size=ttnn.CoreCoord(*ttnn.settings.grid_size),
            q_chunk_size=size,
            k_chunk_size=size,
            exp_approx_mode=False,
        )
        try:
            out = ttnn.transformer.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=attn_mask,
                is_causal=is_causal,
                scale=scale,
                program_config=program_config,
                compute_kernel_config=ttnn.settings.compute_kernel_config,
            )
            break
        except Exception:
            if index == len(sizes) - 1:
                raise
    if head_dim % workarounds.TILE:
        out = ttnn.slice(out, (0, 0, 0, 0), (*out.shape[:-1], head_dim))
    return out


@lower(operators.attention_mask)
def attention_mask(ttnn, mask, shape):
    """The additive mask at full query and key length."""
    missing = len(shape) - len(mask.shape)
    if missing:
        mask = ttnn.reshape(mask, (*[1] * missing, *mask.shape))
    if tuple(mask.shape) != tuple(shape):
        mask = ttnn.expand(mask, tuple(shape))
    return workarounds.pad_mask(ttnn, mask)


@lower(operators.split_heads)
def split_heads(ttnn, x, num_heads, num_kv_heads):
    """x [batch, seq, (heads + 2 kv heads) head_dim] → query, key, value [batch, heads, seq, head_dim]."""
    return ttnn.transformer.split_query_key_value_and_split_heads(
        x, num_heads=num_heads, num_kv_heads=num_kv_heads, transpose_key=False
    )


@lower(operators.merge_heads)
def merge_heads(ttnn, x):
    """x [batch, heads, seq, head_dim] → [batch, seq, heads head_dim]."""
    return ttnn.transformer.concatenate_heads(x)
