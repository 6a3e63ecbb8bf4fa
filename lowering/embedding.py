"""Table lookups: ATen node → TTNN calls."""

from __future__ import annotations

import math

from tt_dynamo.graph import aten
from tt_dynamo.lowering.registry import Need, lower


@lower(aten.embedding.default, weight=Need("ROW_MAJOR"), indices=Need("ROW_MAJOR", "uint32"))
def embedding(ttnn, weight, indices, padding_idx=-1, scale_grad_by_freq=False, sparse=False):
    """weight [rows, width] at indices [...] → [..., width]. A tiled table would be untilized at every call."""
    shape = indices.shape
    if len(shape) != 2:
        indices = ttnn.reshape(indices, (1, math.prod(shape)))
    out = ttnn.embedding(indices, weight, layout=ttnn.TILE_LAYOUT)
    return ttnn.reshape(out, (*shape, weight.shape[-1])) if len(shape) != 2 else out
