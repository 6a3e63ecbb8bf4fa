"""Resized images: fused node → TTNN calls."""

from __future__ import annotations

from tt_dynamo import operators_image
from tt_dynamo.lowering.recorder import Refused
from tt_dynamo.lowering.registry import Need, lower


@lower(operators_image.repeat_pixels, gives="ROW_MAJOR", x=Need("ROW_MAJOR"))
def repeat_pixels(ttnn, x, image, height, width):
    """x [1, 1, pixels, channels] → [1, 1, height * width * pixels, channels]."""
    pixels = ttnn.reshape(x, (*image, x.shape[-1]))
    larger = ttnn.upsample(pixels, [height, width], mode="nearest", memory_config=ttnn.DRAM_MEMORY_CONFIG)
    return ttnn.reshape(larger, (1, 1, x.shape[-2] * height * width, x.shape[-1]))


@lower(operators_image.resample)
def resample(ttnn, x, rows, columns):
    """x [..., height, width] → rowsᵀ x columns."""
    options = {"compute_kernel_config": ttnn.settings.compute_kernel_config}
    if rows is None:
        return x if columns is None else ttnn.matmul(x, columns, core_grid=ttnn.settings.core_grid, **options)
    turned = _turned(ttnn, x, rows, **options)
    return ttnn.transpose(turned, -2, -1) if columns is None else _turned(ttnn, turned, columns, **options)


def _turned(ttnn, x, weights, **options):
    """xᵀ weights, on all cores where TTNN shares them among several matrices, else on those that it takes itself."""
    try:
        return ttnn.matmul(x, weights, transpose_a=True, core_grid=ttnn.settings.core_grid, **options)
    except Refused:
        return ttnn.matmul(x, weights, transpose_a=True, **options)
