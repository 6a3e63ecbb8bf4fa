"""Patch embeddings: fused node → TTNN calls."""

from __future__ import annotations

from tt_dynamo import operators
from tt_dynamo.lowering.registry import Need, lower


@lower(operators.fold_patches, gives="ROW_MAJOR", x=Need("ROW_MAJOR"))
def fold_patches(ttnn, x, height, width):
    """x [batch, channels, H, W] → [batch, patches, height width channels], each patch in row, column, channel order."""
    batch, channels, rows, columns = x.shape
    patches = ttnn.fold(ttnn.permute(x, (0, 2, 3, 1)), height, width)
    return ttnn.reshape(patches, (batch, (rows // height) * (columns // width), height * width * channels))
