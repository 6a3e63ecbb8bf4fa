"""Images read between their pixels: fused node → TTNN calls.

Positions are float32 (`passes/place/positions.py`): bfloat16 holds those in an image of 200 rows to half a row.
"""

from tt_dynamo.ir import operators
from tt_dynamo.ir.spec import TILE
from tt_dynamo.lowering.matmul import product_config
from tt_dynamo.lowering.registry import TTNN, Need, Tensor, lower

POSITIONS = Need("ROW_MAJOR", "float32")
NUMBERS = Need("TILE", "float32")


@lower(operators.grid_sample, gives="ROW_MAJOR", x=Need("ROW_MAJOR"), grid=POSITIONS, rows=NUMBERS, columns=NUMBERS)
def grid_sample(ttnn: TTNN, x: Tensor, grid: Tensor, rows, columns, image, align_corners):
    """x [1, 1, batch * height * width, channels] → [1, 1, batch * new height * new width, channels]."""
    channels = x.shape[-1]
    if channels == 1:
        return _by_products(ttnn, x, grid, rows, columns, image, align_corners)
    x = ttnn.reshape(x, (*image, channels))
    more = -channels % TILE
    if more:
        x = ttnn.pad(x, [(0, 0), (0, 0), (0, 0), (0, more)], 0.0)
    sampled = ttnn.grid_sample(x, grid, align_corners=align_corners)
    batch, height, width, _ = sampled.shape
    if more:
        sampled = ttnn.slice(sampled, (0, 0, 0, 0), (batch, height, width, channels))
    return ttnn.reshape(sampled, (1, 1, batch * height * width, channels))


def _by_products(ttnn: TTNN, x: Tensor, grid: Tensor, rows, columns, image, align_corners):
    """The same of one channel, of which TTNN's kernel would read 32: a product with weights of rows and of columns.

    A pixel one away from a position has no weight there, and so has any that the image has not.
    """
    batch, height, width = image
    points = grid.shape[1] * grid.shape[2]
    positions = ttnn.permute(ttnn.reshape(grid, (batch, points, 2)), (0, 2, 1))
    weights = []
    for part, (numbers, size) in enumerate(((columns, width), (rows, height))):
        along = ttnn.slice(positions, (0, part, 0), (batch, part + 1, points))
        along = ttnn.to_layout(along, ttnn.TILE_LAYOUT)
        scale = (size - 1 if align_corners else size) / 2
        along = ttnn.add(ttnn.multiply(along, scale), (size - 1) / 2)
        distances = ttnn.abs(ttnn.subtract(numbers, along))
        weights.append(ttnn.typecast(ttnn.relu(ttnn.rsub(distances, 1.0)), ttnn.bfloat16))
    pixels = ttnn.to_layout(ttnn.reshape(x, (batch, height, width)), ttnn.TILE_LAYOUT)
    lines = ttnn.matmul(pixels, weights[0], **product_config(ttnn))
    sums = ttnn.sum(ttnn.multiply(lines, weights[1]), 1, keepdim=True)
    return ttnn.reshape(ttnn.to_layout(sums, ttnn.ROW_MAJOR_LAYOUT), (1, 1, batch * points, 1))
