"""Images resized, rearranged and cut into patches: fused node → TTNN calls."""

import math

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused
from tt_dynamo.ir.operators.image import folding_cores
from tt_dynamo.lowering.data_movement import in_layout
from tt_dynamo.lowering.images.pools import flat_pixels
from tt_dynamo.lowering.matmul import matmul, product_config
from tt_dynamo.lowering.memory import across, first_cores, in_rows, is_sharded, shard_width
from tt_dynamo.lowering.registry import TTNN, Need, Tensor, lower


@lower(operators.repeat_pixels, gives="ROW_MAJOR", sharded=True, x=Need("any"))
def repeat_pixels(ttnn: TTNN, x: Tensor, image, height, width):
    """x [1, 1, pixels, channels] → [1, 1, height * width * pixels, channels], in shards where x is."""
    if is_sharded(x) and shard_width(x) * across(x) != x.shape[-1]:
        # TTNN takes an equal share of each pixel from every core.
        raise Refused("ttnn.upsample: the cores hold different numbers of channels")
    pixels = ttnn.reshape(in_layout(ttnn, x, ttnn.ROW_MAJOR_LAYOUT), (*image, x.shape[-1]))
    where = {} if is_sharded(x) else {"memory_config": ttnn.DRAM_MEMORY_CONFIG}
    larger = ttnn.upsample(pixels, [height, width], mode="nearest", **where)
    return ttnn.reshape(larger, (1, 1, x.shape[-2] * height * width, x.shape[-1]))


@lower(operators.first_pixels)
def first_pixels(ttnn: TTNN, x: Tensor, count):
    """A view of x: the pixels behind become what pads the last tile, as they are in what `ttnn.slice` writes."""
    *leading, pixels, channels = x.shape
    tiles = [math.ceil(size / ttnn.TILE_SIZE) * ttnn.TILE_SIZE for size in (pixels, channels)]
    if math.ceil(count / ttnn.TILE_SIZE) * ttnn.TILE_SIZE != tiles[0]:
        raise Refused("ttnn.reshape: other pixels fill the last tile")
    return ttnn.reshape(x, (*leading, count, channels), (*leading, *tiles))


@lower(operators.resample)
def resample(ttnn: TTNN, x: Tensor, rows, columns):
    """x [..., height, width] → rowsᵀ x columns."""
    if rows is None:
        return x if columns is None else matmul(ttnn, x, columns)
    turned = _turned(ttnn, x, rows)
    return ttnn.transpose(turned, -2, -1) if columns is None else _turned(ttnn, turned, columns)


def _turned(ttnn: TTNN, x: Tensor, weights):
    """xᵀ weights, on all cores where TTNN shares them among several matrices, else on those that it takes itself."""

    def turn(cores):
        config = product_config(ttnn)
        if cores != "all cores":
            del config["core_grid"]
        return ttnn.matmul(x, weights, transpose_a=True, **config)

    return ttnn.choose(("matmul", x, weights), ("all cores", "those that TTNN takes"), turn)


@lower(operators.space_to_depth, gives="ROW_MAJOR", x=Need("ROW_MAJOR"))
def space_to_depth(ttnn: TTNN, x: Tensor, stride, padding, channels):
    """x [batch, c, H, W] → [1, 1, batch * h * w, channels * stride²], in height shards in L1.

    Each core folds as many channels of images as another; all of them share the result.
    """
    batch, c, *size = x.shape
    most = math.prod(ttnn.settings.grid_size)
    count = folding_cores(batch * channels, most)
    cores = first_cores(ttnn, count)
    squares = batch * math.prod((length + 2 * zeros) // stride for length, zeros in zip(size, padding, strict=True))
    shared = in_rows(ttnn, first_cores(ttnn, most), [math.ceil(squares / most), channels * stride**2])
    folded = ttnn.fold(
        ttnn.to_memory_config(x, in_rows(ttnn, cores, [math.ceil(batch * c * size[0] / count), size[1]])),
        stride,
        stride,
        use_transpose_as_fold=True,
        padding=[padding[0], padding[0], padding[1], padding[1], 0, channels - c],
        grid_size=cores,
        override_memory_config=shared,
    )
    return flat_pixels(ttnn, folded)


@lower(operators.fold_patches, gives="ROW_MAJOR", x=Need("ROW_MAJOR"))
def fold_patches(ttnn: TTNN, x: Tensor, height, width):
    """x [batch, H, W, channels] → [batch, patches, height width channels], each patch in row, column, channel order."""
    batch, rows, columns, channels = x.shape
    patches = ttnn.fold(x, height, width)
    return ttnn.reshape(patches, (batch, (rows // height) * (columns // width), height * width * channels))


@lower(operators.gather_patches, gives="ROW_MAJOR", x=Need("ROW_MAJOR"))
def gather_patches(ttnn: TTNN, x: Tensor):
    """x [batch, channels, rows, height, columns, width] → [batch, rows columns, channels height width]; volumes too."""
    sizes = tuple(x.shape)
    order = [0, *range(2, len(sizes), 2), *range(1, len(sizes), 2)]
    counts = math.prod(sizes[dim] for dim in order[1 : len(order) // 2])
    return ttnn.reshape(ttnn.permute(x, tuple(order)), (sizes[0], counts, math.prod(sizes[1:]) // counts))


@lower(operators.rearrange, gives="ROW_MAJOR", sharded=True, x=Need("any"))
def rearrange(ttnn: TTNN, x: Tensor, sizes, order, shape):
    """x [1, 1, pixels, channels] → shape, with parts of these sizes in this order. As rows: parts fill no tiles."""
    rows = ttnn.to_layout(x, ttnn.ROW_MAJOR_LAYOUT, memory_config=ttnn.DRAM_MEMORY_CONFIG)
    moved = ttnn.permute(ttnn.reshape(rows, tuple(sizes)), tuple(order))
    return ttnn.reshape(moved, tuple(shape))
