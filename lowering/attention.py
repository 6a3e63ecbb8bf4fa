"""Attention and its heads: fused or ATen node → TTNN calls."""

from __future__ import annotations

import math

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering import workarounds
from tt_dynamo.lowering.registry import lower
from tt_dynamo.lowering.workarounds import TILE

# Larger chunks read keys and values fewer times; TTNN's default of 32 costs up to 3.75 times as much:
# https://github.com/tenstorrent/tt-metal/issues/51911
CHUNK_SIZES = (256, 128, 64, 32)


@lower(aten.scaled_dot_product_attention.default)
def scaled_dot_product_attention(
    ttnn, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """softmax(query keyᵀ scale + attn_mask) value → [batch, heads, query length, head_dim].

    query [batch, heads, query length, head_dim]; key, value [batch, kv heads, key length, head_dim].
    Source: Dao 2023, https://arxiv.org/abs/2307.08691
    """
    if dropout_p:
        raise Unsupported("attention with dropout: TTNN's attention has none")
    head_dim = query.shape[-1]
    padding = -head_dim % TILE
    if padding:  # zeros add nothing to a dot product; the scale is the true head_dim's
        pairs = [(0, 0), (0, 0), (0, 0), (0, padding)]
        query, key, value = (ttnn.pad(x, pairs, 0.0) for x in (query, key, value))
    scale = head_dim**-0.5 if scale is None else scale
    out = _chunked(ttnn, query, key, value, attn_mask, is_causal, scale)
    return ttnn.slice(out, (0, 0, 0, 0), (*out.shape[:-1], head_dim)) if padding else out


@lower(operators.attention)
def attention(ttnn, query, key, value, mask, is_causal, scale, window=None):
    """The same with its heads merged by the kernel that computes it: [batch, 1, query length, heads head_dim].

    TTNN's window, too, counts the key at the query's own place.
    """
    head_dim = query.shape[-1]
    if head_dim % TILE:  # TTNN merges whole tiles, so a head of another size would come out padded
        raise Unsupported(f"a head of {head_dim} elements does not fill its tiles")
    scale = head_dim**-0.5 if scale is None else scale
    options = {} if window is None else {"sliding_window_size": window}
    return _chunked(ttnn, query, key, value, mask, is_causal, scale, output_concat_heads=True, **options)


@lower(operators.merge_heads)
def merge_heads(ttnn, x):
    """x [batch, heads, seq, head_dim] → [batch, 1, seq, heads head_dim]."""
    if x.shape[-1] % TILE:
        raise Unsupported(f"a head of {x.shape[-1]} elements does not fill its tiles")
    return ttnn.experimental.nlp_concat_heads(x)


@lower(operators.capped_attention)
def capped_attention(ttnn, query, key, value, mask, scale, cap):
    """softmax(cap tanh(query keyᵀ scale / cap) + mask) value → [batch, heads, query length, head_dim].

    TTNN's attention caps nothing. The heads of queries that share one of keys are rows of one product, which repeats
    no key; the scale and the cap are factors of operations that are there anyway.
    """
    batch, heads, seq, head_dim = query.shape
    kv_heads, keys = key.shape[1:3]
    config = {"core_grid": ttnn.settings.core_grid, "compute_kernel_config": ttnn.settings.compute_kernel_config}
    rows = ttnn.reshape(query, (batch, kv_heads, heads // kv_heads * seq, head_dim))
    scores = ttnn.matmul(rows, key, transpose_b=True, **config)
    scores = ttnn.multiply(scores, scale / cap, activations=[ttnn.UnaryWithParam(ttnn.UnaryOpType.TANH)])
    scores = ttnn.reshape(scores, (batch, heads, seq, keys))
    scores = ttnn.multiply(scores, cap) if mask is None else ttnn.mac(scores, cap, mask)
    weights = ttnn.softmax(
        scores, dim=3, numeric_stable=True, compute_kernel_config=ttnn.settings.compute_kernel_config
    )
    weights = ttnn.reshape(weights, (batch, kv_heads, heads // kv_heads * seq, keys))
    return ttnn.reshape(ttnn.matmul(weights, value, **config), (batch, heads, seq, head_dim))


def _chunked(ttnn, query, key, value, mask, is_causal, scale, **options):
    """TTNN's attention with the largest chunks that keep every core busy and that TTNN accepts."""
    mask = workarounds.pad_mask(ttnn, mask)
    batch, heads, seq, _ = query.shape
    columns, rows = ttnn.settings.grid_size
    busy = [size for size in CHUNK_SIZES if batch * heads * math.ceil(seq / size) >= columns * rows]
    q_sizes = [size for size in CHUNK_SIZES if size <= (busy[0] if busy else 64) and size < 2 * max(seq, TILE)]
    k_sizes = [size for size in CHUNK_SIZES if size < 2 * max(key.shape[2], TILE)]
    chunks = list(dict.fromkeys((min(size, q_sizes[0]), size) for size in k_sizes))

    def attend(chunk):
        return ttnn.transformer.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=is_causal,
            scale=scale,
            program_config=ttnn.SDPAProgramConfig(
                compute_with_storage_grid_size=ttnn.CoreCoord(columns, rows), **chunk, exp_approx_mode=False
            ),
            compute_kernel_config=ttnn.settings.compute_kernel_config,
            **options,
        )

    asked = ("scaled_dot_product_attention", query, key, value, mask, is_causal, options)
    return ttnn.choose(asked, [{"q_chunk_size": q, "k_chunk_size": k} for q, k in chunks], attend)


@lower(operators.attention_mask)
def attention_mask(ttnn, mask, zeros=None):
    """The additive mask at full query and key length: adding broadcasts in one kernel, where expand takes three."""
    return mask if zeros is None else ttnn.add(mask, zeros)


@lower(operators.split_heads)
def split_heads(ttnn, x, num_heads, num_kv_heads):
    """x [batch, 1, seq, (heads + 2 kv heads) head_dim] → query, key, value [batch, heads, seq, head_dim].

    TTNN rounds head_dim up to whole tiles without a word; the compiler compares shapes and takes such a split apart.
    """
    return ttnn.experimental.nlp_create_qkv_heads(
        x, num_heads=num_heads, num_kv_heads=num_kv_heads, transpose_k_heads=False
    )
