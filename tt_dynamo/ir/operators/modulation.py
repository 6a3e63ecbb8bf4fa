"""Calls of diffusion transformers: parts of a modulation, gates into the stream, heads that are normed and turned."""

import torch

from tt_dynamo.ir.operators.attention import rotary_by_matrix
from tt_dynamo.ir.operators.definition import FUSED, define
from tt_dynamo.ir.operators.linear import linear, rms_norm


@define("Tensor x, Tensor weight, Tensor? bias, int parts", FUSED, gives="Tensor[]")
def linear_parts(x, weight, bias, parts):
    """x [..., in] times weight [in, out] plus bias [out], in so many parts [..., out / parts] of equal width."""
    return tuple(part.clone() for part in linear(x, weight, bias).chunk(parts, -1))


@define("Tensor x, Tensor weight, Tensor? bias, Tensor residual, Tensor gate", FUSED)
def linear_addcmul(x, weight, bias, residual, gate):
    """residual + (x [..., rows, in] times weight [in, out] plus bias [out]) gate; gate [..., 1, out] of one row.

    Source: Peebles & Xie 2023, https://arxiv.org/abs/2212.09748
    """
    return torch.addcmul(residual, linear(x, weight, bias), gate)


@define("Tensor x, Tensor weight, Tensor cos, Tensor sin, Tensor matrix, int num_heads, float eps", FUSED)
def norm_heads(x, weight, cos, sin, matrix, num_heads, eps):
    """x [1, 1, rows, heads head_dim] -> [1, heads, rows, head_dim]: each head normed, times its weight, and turned.

    weight [1, heads head_dim]; cos, sin [1, 1, rows, head_dim] and matrix [1, 1, 32, 32] as of `rotary_by_matrix`.
    """
    heads = x.reshape(1, x.shape[2], num_heads, -1).permute(0, 2, 1, 3)
    normed = rms_norm(heads, None, eps) * weight.reshape(1, num_heads, 1, -1)
    return rotary_by_matrix(normed, cos, sin, matrix)
