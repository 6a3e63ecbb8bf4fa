"""Images that are read between their pixels, at positions that are computed.

Before   y = grid_sampler_2d(x, grid, bilinear, zeros, align_corners)
After    y = grid_sample(x, grid, arange(height), arange(width), …)      x and y flattened, channels last

Other interpolations, and what else may lie around the image, stay as they are.
"""

import torch
from torch.fx import Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import shape_of
from tt_dynamo.passes.images.writer import ImageWriter
from tt_dynamo.passes.rows import literal

BILINEAR, ZEROS = 0, 0  # as torch numbers them


def grid_sampler(write: ImageWriter, x: Node, grid: Node, mode: int, around: int, align_corners: bool) -> Node | None:
    if (mode, around) != (BILINEAR, ZEROS):
        return None
    flat, image = write.flat(x)
    rows, columns = (
        literal(x, torch.arange(size, dtype=torch.float32)[:, None], f"positions_{size}") for size in image[1:]
    )
    sampled = write.emit(operators.grid_sample, flat, grid, rows, columns, image, align_corners)
    return write.value(sampled, list(shape_of(grid)[:3]))
