"""Which ATen operations AOTAutograd takes apart, and which it leaves whole because TTNN has them whole.

Linear layers, attention, norms, softmax, gelu, embedding, convolution, pooling and batch norm arrive whole or as the
idioms that `passes/canonicalize.py` knows. Only what neither TTNN nor a pass has whole stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._decomp import get_decompositions

from tt_dynamo.composites import COMPOSITES

aten = torch.ops.aten

TAKEN_APART = (
    aten.addr,
    aten.rsub,
    aten.square,
    aten.masked_fill,
)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """A table for AOTAutograd; a new one at every call."""
    return {**get_decompositions(TAKEN_APART), **COMPOSITES}
