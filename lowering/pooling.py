"""Pools of flattened images: fused node → TTNN calls. Tiles sharded in L1, or where these do not fit, in DRAM."""

from __future__ import annotations

import math

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering.data_movement import in_layout
from tt_dynamo.lowering.registry import Need, lower


def _geometry(image, channels, kernel, stride, padding):
    batch, height, width = image
    return {
        "batch_size": batch,
        "input_h": height,
        "input_w": width,
        "channels": channels,
        "kernel_size": list(kernel),
        "stride": list(stride),
        "padding": list(padding),
    }


@lower(operators.max_pool2d, sharded=True, x=Need("any"))
def max_pool2d(ttnn, x, image, kernel, stride, padding, dilation, ceil_mode):
    """x [1, 1, batch * height * width, channels] → the largest element of each window."""
    windows = _geometry(image, x.shape[-1], kernel, stride, padding)
    return _pool(ttnn, "max_pool2d", x, {**windows, "dilation": list(dilation), "ceil_mode": ceil_mode})


@lower(operators.avg_pool2d, sharded=True, x=Need("any"))
def avg_pool2d(ttnn, x, image, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override):
    """x [1, 1, batch * height * width, channels] → the mean of each window."""
    if [*kernel] == [*image[1:]] and not any(padding) and divisor_override is None:
        return _whole_mean(ttnn, x, image)
    windows = {
        **_geometry(image, x.shape[-1], kernel, stride, padding),
        "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad,
        "divisor_override": divisor_override,
    }
    return _pool(ttnn, "avg_pool2d", x, windows, compute_kernel_config=ttnn.settings.compute_kernel_config)


def _pool(ttnn, name, x, windows, **precision):
    """A pool whose result stays in L1, or where TTNN refuses that, goes to DRAM as rows and then as tiles."""
    options = {**windows, **precision}

    def pool(memory):
        if memory == "L1":
            return _flat(ttnn, getattr(ttnn, name)(input_tensor=x, **options, output_layout=ttnn.TILE_LAYOUT))
        rows = in_layout(ttnn, x, ttnn.ROW_MAJOR_LAYOUT)
        pooled = getattr(ttnn, name)(input_tensor=rows, **options, memory_config=ttnn.DRAM_MEMORY_CONFIG)
        return ttnn.to_layout(_flat(ttnn, pooled), ttnn.TILE_LAYOUT)

    return ttnn.choose((name, x, windows), ("L1", "DRAM"), pool)


def _whole_mean(ttnn, x, image):
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


def _flat(ttnn, pooled):
    """[1, 1, pixels, channels] of what has, where TTNN pooled it in slices, its batch, height and width apart."""
    *pixels, channels = pooled.shape
    flat = (1, 1, math.prod(pixels), channels)
    return pooled if pooled.shape == flat else ttnn.reshape(pooled, flat)


@lower(aten.max_pool2d_with_indices.default, aten.adaptive_max_pool2d.default)
def max_pool_with_indices(ttnn, x, *windows):
    """A pool whose indices are read, or whose windows differ in size."""
    raise Unsupported(
        "TTNN's windows are of one size, and which of several equal maxima an index names is torch's own choice"
    )
