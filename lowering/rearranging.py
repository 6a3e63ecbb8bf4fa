"""Images whose channels, rows and columns become others: fused node → TTNN calls."""

from __future__ import annotations

from tt_dynamo import operators_image
from tt_dynamo.lowering.registry import Need, lower


@lower(operators_image.rearrange, gives="ROW_MAJOR", sharded=True, x=Need("any"))
def rearrange(ttnn, x, sizes, order, shape):
    """x [1, 1, pixels, channels] → shape, with parts of these sizes in this order. As rows: parts fill no tiles."""
    rows = ttnn.to_layout(x, ttnn.ROW_MAJOR_LAYOUT, memory_config=ttnn.DRAM_MEMORY_CONFIG)
    moved = ttnn.permute(ttnn.reshape(rows, tuple(sizes)), tuple(order))
    return ttnn.reshape(moved, tuple(shape))
