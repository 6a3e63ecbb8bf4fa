"""Products of diffusion transformers: the parts of a modulation, and what a gate lets into the stream."""

import torch

from tt_dynamo.ir.operators.definition import FUSED, define
from tt_dynamo.ir.operators.linear import linear


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
