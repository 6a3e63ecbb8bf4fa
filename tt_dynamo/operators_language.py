"""Operations of language models that TTNN has whole and ATen has not; see `operators` for what such an operator is."""

from __future__ import annotations

import torch

from tt_dynamo.operators import ACTIVATIONS, define


@define("rotary(Tensor x, Tensor cos, Tensor sin) -> Tensor")
def rotary(x, cos, sin):
    """Rotary position embedding of x [batch, heads, seq, head_dim] with cos, sin [batch or 1, 1, seq, head_dim].

    Element i of the first half turns with element i of the second, as transformers lays heads out.
    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864
    """
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


@define("update_cache(Tensor cache, Tensor x, Tensor positions) -> Tensor")
def update_cache(cache, x, positions):
    """cache [batch, heads, length, head_dim] with x [batch, heads, seq, head_dim] in its rows `positions` [seq]."""
    return cache.index_copy(2, positions, x)


@define("gate(Tensor x, Tensor y, str activation) -> Tensor")
def gate(x, y, activation):
    """activation(x) * y: how SwiGLU and GeGLU let one projection gate another."""
    return ACTIVATIONS[activation](x) * y


# What becomes TTNN calls one by one where TTNN refuses the whole.
FUSED = frozenset({rotary, gate})
