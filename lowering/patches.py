"""Patch embeddings: fused node → TTNN calls."""

from __future__ import annotations

from tt_dynamo.lowering.registry import Need, lower

from tt_dynamo import operators


@lower(operators.fold_patches, gives="ROW_MAJOR", x=Need("ROW_MAJOR"))
def fold_patches(ttnn, x, height, width, channels):
    """x [batch, c, H, W] → [batch, patches, height width channels], each patch in row, column, channel order."""
    batch, c, rows, columns = x.shape
    x = ttnn.permute(x, (0, 2, 3, 1))
    if channels != c:
        x = ttnn.pad(x, [(0, 0), (0, 0), (0, 0), (0, channels - c)], 0.0)
    x = ttnn.fold(x, height, width)
    return ttnn.reshape(x, (batch, (rows // height) * (columns // width), height * width * channels))
