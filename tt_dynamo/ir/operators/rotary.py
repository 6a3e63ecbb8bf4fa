"""Rotary position embedding."""

from __future__ import annotations

import torch

from tt_dynamo.ir.operators.definition import define


@define("rotary(Tensor x, Tensor cos, Tensor sin) -> Tensor", fused=True)
def rotary(x, cos, sin):
    """Rotary position embedding of x [batch, heads, seq, head_dim] with cos, sin [batch or 1, 1, seq, head_dim].

    Element i of the first half turns with element i of the second, as transformers lays heads out.
    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864
    """
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


@define("rotary_by_matrix(Tensor x, Tensor cos, Tensor sin, Tensor matrix) -> Tensor", fused=True)
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


@define("rotary_decode(Tensor x, Tensor cos, Tensor sin) -> Tensor", fused=True)
def rotary_decode(x, cos, sin):
    """`rotary` of one token of each user: x [1, batch, heads, head_dim], cos and sin [1, batch, 1, head_dim]."""
    return rotary.decompose(x, cos, sin)
