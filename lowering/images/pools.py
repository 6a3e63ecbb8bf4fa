"""Images pooled: fused node → TTNN calls."""

import math

from tt_dynamo.ir import operators
from tt_dynamo.lowering.data_movement import in_layout
from tt_dynamo.lowering.registry import TTNN, Need, Tensor, lower


def _geometry(x, image, kernel, stride, padding):
    windows = {"kernel_size": list(kernel), "stride": list(stride), "padding": list(padding)}
    sizes = dict(zip(("batch_size", "input_h", "input_w"), image, strict=True))
    return {**sizes, "channels": x.shape[-1], **windows}


@lower(operators.max_pool2d, sharded=True, x=Need("any"))
def max_pool2d(ttnn: TTNN, x: Tensor, image, kernel, stride, padding, dilation, ceil_mode):
    """x [1, 1, batch * height * width, channels] → the largest element of each window."""
    windows = {**_geometry(x, image, kernel, stride, padding), "dilation": list(dilation), "ceil_mode": ceil_mode}
    return _pool(ttnn, "max_pool2d", x, windows)


@lower(operators.avg_pool2d, sharded=True, x=Need("any"))
def avg_pool2d(ttnn: TTNN, x: Tensor, image, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override):
    """x [1, 1, batch * height * width, channels] → the mean of each window."""
    if [*kernel] == [*image[1:]] and not any(padding) and divisor_override is None:
        return _whole_mean(ttnn, x, image)
    counted = {"count_include_pad": count_include_pad, "divisor_override": divisor_override}
    windows = {**_geometry(x, image, kernel, stride, padding), "ceil_mode": ceil_mode, **counted}
    return _pool(ttnn, "avg_pool2d", x, windows, compute_kernel_config=ttnn.settings.compute_kernel_config)


def _pool(ttnn: TTNN, name, x: Tensor, windows, **precision):
    """A pool whose result stays in L1, or where TTNN refuses that, goes to DRAM as rows and then as tiles."""
    options = {**windows, **precision}

    def pool(memory):
        if memory == "L1":
            return flat_pixels(ttnn, getattr(ttnn, name)(input_tensor=x, **options, output_layout=ttnn.TILE_LAYOUT))
        rows = in_layout(ttnn, x, ttnn.ROW_MAJOR_LAYOUT)
        pooled = getattr(ttnn, name)(input_tensor=rows, **options, memory_config=ttnn.DRAM_MEMORY_CONFIG)
        return ttnn.to_layout(flat_pixels(ttnn, pooled), ttnn.TILE_LAYOUT)

    return ttnn.choose((name, x, windows), ("L1", "DRAM"), pool)


def _whole_mean(ttnn: TTNN, x: Tensor, image):
    """The mean of each image, [1, 1, batch, channels].

    That of one is taken of its tiles as they lie in L1. Several begin inside tiles: their rows are taken, which have no
    padding either that a sum must not see.
    """
    batch, height, width = image
    options = {"dim": 2, "keepdim": True, "compute_kernel_config": ttnn.settings.compute_kernel_config}
    if batch == 1:
        means = ttnn.mean(x, **options, memory_config=ttnn.DRAM_MEMORY_CONFIG)
        return in_layout(ttnn, means, ttnn.TILE_LAYOUT)  # those of rows are rows
    rows = ttnn.to_layout(x, ttnn.ROW_MAJOR_LAYOUT, memory_config=ttnn.DRAM_MEMORY_CONFIG)
    means = ttnn.mean(ttnn.reshape(rows, (batch, 1, height * width, x.shape[-1])), **options)
    return ttnn.to_layout(ttnn.reshape(means, (1, 1, batch, x.shape[-1])), ttnn.TILE_LAYOUT)


def flat_pixels(ttnn: TTNN, pooled):
    """[1, 1, pixels, channels] of what has, where TTNN pooled it in slices, its batch, height and width apart."""
    *pixels, channels = pooled.shape
    flat = (1, 1, math.prod(pixels), channels)
    return pooled if pooled.shape == flat else ttnn.reshape(pooled, flat)
