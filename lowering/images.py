"""Images resized, rearranged and cut into patches: fused node → TTNN calls."""

from __future__ import annotations

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused
from tt_dynamo.lowering.data_movement import in_layout
from tt_dynamo.lowering.memory import across, is_sharded, shard_width
from tt_dynamo.lowering.registry import Need, lower


@lower(operators.repeat_pixels, gives="ROW_MAJOR", sharded=True, x=Need("any"))
def repeat_pixels(ttnn, x, image, height, width):
    """x [1, 1, pixels, channels] → [1, 1, height * width * pixels, channels], in shards where x is."""
    if is_sharded(x) and shard_width(x) * across(x) != x.shape[-1]:
        # TTNN takes an equal share of each pixel from every core.
        raise Refused("ttnn.upsample: the cores hold different numbers of channels")
    pixels = ttnn.reshape(in_layout(ttnn, x, ttnn.ROW_MAJOR_LAYOUT), (*image, x.shape[-1]))
    where = {} if is_sharded(x) else {"memory_config": ttnn.DRAM_MEMORY_CONFIG}
    larger = ttnn.upsample(pixels, [height, width], mode="nearest", **where)
    return ttnn.reshape(larger, (1, 1, x.shape[-2] * height * width, x.shape[-1]))


@lower(operators.resample)
def resample(ttnn, x, rows, columns):
    """x [..., height, width] → rowsᵀ x columns."""
    options = {"compute_kernel_config": ttnn.settings.compute_kernel_config}
    if rows is None:
        return x if columns is None else ttnn.matmul(x, columns, core_grid=ttnn.settings.core_grid, **options)
    turned = _turned(ttnn, x, rows, **options)
    return ttnn.transpose(turned, -2, -1) if columns is None else _turned(ttnn, turned, columns, **options)


def _turned(ttnn, x, weights, **options):
    """xᵀ weights, on all cores where TTNN shares them among several matrices, else on those that it takes itself."""

    def turn(cores):
        grid = {"core_grid": ttnn.settings.core_grid} if cores == "all cores" else {}
        return ttnn.matmul(x, weights, transpose_a=True, **grid, **options)

    return ttnn.choose(("matmul", x, weights), ("all cores", "those that TTNN takes"), turn)


@lower(operators.fold_patches, gives="ROW_MAJOR", x=Need("ROW_MAJOR"))
def fold_patches(ttnn, x, height, width):
    """x [batch, channels, H, W] → [batch, patches, height width channels], each patch in row, column, channel order."""
    batch, channels, rows, columns = x.shape
    patches = ttnn.fold(ttnn.permute(x, (0, 2, 3, 1)), height, width)
    return ttnn.reshape(patches, (batch, (rows // height) * (columns // width), height * width * channels))


@lower(operators.rearrange, gives="ROW_MAJOR", sharded=True, x=Need("any"))
def rearrange(ttnn, x, sizes, order, shape):
    """x [1, 1, pixels, channels] → shape, with parts of these sizes in this order. As rows: parts fill no tiles."""
    rows = ttnn.to_layout(x, ttnn.ROW_MAJOR_LAYOUT, memory_config=ttnn.DRAM_MEMORY_CONFIG)
    moved = ttnn.permute(ttnn.reshape(rows, tuple(sizes)), tuple(order))
    return ttnn.reshape(moved, tuple(shape))
