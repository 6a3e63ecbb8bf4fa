"""Decompositions of what torch has as one operation around attention: encoder layers, and attention's gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tt_dynamo.capture.composites import composite

aten = torch.ops.aten


@composite(aten._transformer_encoder_layer_fwd.default)
def transformer_encoder_layer(
    src: Tensor, embed_dim: int, num_heads: int, qkv_weight: Tensor, qkv_bias: Tensor, proj_weight: Tensor,
    proj_bias: Tensor, use_gelu: bool, norm_first: bool, eps: float, norm_weight_1: Tensor, norm_bias_1: Tensor,
    norm_weight_2: Tensor, norm_bias_2: Tensor, ffn_weight_1: Tensor, ffn_bias_1: Tensor, ffn_weight_2: Tensor,
    ffn_bias_2: Tensor, mask: Tensor | None = None, mask_type: int | None = None,
) -> Any:  # fmt: skip
    """What nn.TransformerEncoderLayer becomes in evaluation: src [batch, seq, embed_dim]."""

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x, (embed_dim,), weight, bias, eps)

    x = norm(src, norm_weight_1, norm_bias_1) if norm_first else src
    attention = _attention(x, num_heads, qkv_weight, qkv_bias, mask, mask_type)
    x = src + F.linear(attention, proj_weight, proj_bias)
    if not norm_first:
        x = norm(x, norm_weight_1, norm_bias_1)
    hidden = norm(x, norm_weight_2, norm_bias_2) if norm_first else x
    hidden = F.linear(hidden, ffn_weight_1, ffn_bias_1)
    hidden = F.gelu(hidden) if use_gelu else F.relu(hidden)
    x = x + F.linear(hidden, ffn_weight_2, ffn_bias_2)
    return x if norm_first else norm(x, norm_weight_2, norm_bias_2)


@composite(aten._native_multi_head_attention.default)
def native_multi_head_attention(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, num_head: int, qkv_weight: Tensor, qkv_bias: Tensor,
    proj_weight: Tensor, proj_bias: Tensor, mask: Tensor | None = None, need_weights: bool = True,
    average_attn_weights: bool = True, mask_type: int | None = None,
) -> Any:  # fmt: skip
    """Self-attention with its projections; with the weights of attention where they are needed."""
    if query is not key or key is not value:
        return NotImplemented
    if not need_weights:
        attention = _attention(query, num_head, qkv_weight, qkv_bias, mask, mask_type)
        return F.linear(attention, proj_weight, proj_bias), None
    q, k, v = _heads(query, num_head, qkv_weight, qkv_bias)
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(_masked(mask, mask_type), float("-inf"))
    weights = torch.softmax(scores, -1)
    out = F.linear(_merged(weights @ v), proj_weight, proj_bias)
    return out, weights.mean(1) if average_attn_weights else weights


def _attention(
    x: Tensor, num_heads: int, weight: Tensor, bias: Tensor, mask: Tensor | None, mask_type: int | None
) -> Tensor:
    """Self-attention of x [batch, seq, embed_dim], before the output's projection."""
    kept = None if mask is None else ~_masked(mask, mask_type)
    query, key, value = _heads(x, num_heads, weight, bias)
    return _merged(F.scaled_dot_product_attention(query, key, value, kept))


def _heads(x: Tensor, num_heads: int, weight: Tensor, bias: Tensor) -> list[Tensor]:
    batch, seq, width = x.shape
    parts = F.linear(x, weight, bias).split(width, -1)
    return [part.view(batch, seq, num_heads, -1).transpose(1, 2) for part in parts]


def _merged(heads: Tensor) -> Tensor:
    batch, _, seq, _ = heads.shape
    return heads.transpose(1, 2).reshape(batch, seq, -1)


def _masked(mask: Tensor, mask_type: int | None) -> Tensor:
    """Which keys are left out, to broadcast to [batch, heads, query, key]: torch reads any mask here as a boolean.

    mask_type says what the mask has: 0 [query, key], 1 [batch, key], 2 all four dimensions.
    """
    mask = mask.to(torch.bool)
    if mask_type == 1:
        return mask[:, None, None, :]
    return mask if mask.ndim == 4 else mask[None, None]


@composite(aten._scaled_dot_product_flash_attention_for_cpu_backward.default)
def attention_backward(
    grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, logsumexp: Tensor, dropout_p: float,
    is_causal: bool, *, attn_mask: Tensor | None = None, scale: float | None = None,
) -> Any:  # fmt: skip
    """Gradients of attention by query, key and value [batch, heads, seq, head_dim], from its weights computed anew.

    Nothing reads `logsumexp` then, so the forward graph does not keep it, and has TTNN's attention whole. Several
    heads of queries may share one of keys and values.
    """
    if dropout_p:
        return NotImplemented
    sharing = query.shape[1] // key.shape[1]
    if sharing > 1:
        key, value = (x.repeat_interleave(sharing, 1) for x in (key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = query @ key.mT * scale
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, float("-inf"))
    if attn_mask is not None:
        scores = scores + attn_mask
    weights = torch.softmax(scores, -1)
    grad_weights = aten._softmax_backward_data(grad_out @ value.mT, weights, -1, weights.dtype)
    grad_key, grad_value = grad_weights.mT @ query * scale, weights.mT @ grad_out
    if sharing > 1:
        grad_key, grad_value = (x.unflatten(1, (-1, sharing)).sum(2) for x in (grad_key, grad_value))
    return grad_weights @ key * scale, grad_key, grad_value
