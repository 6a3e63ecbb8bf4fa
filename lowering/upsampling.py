"""Resized images: fused node → TTNN calls."""

from __future__ import annotations

from tt_dynamo import operators_image
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
    options = {"core_grid": ttnn.settings.core_grid, "compute_kernel_config": ttnn.settings.compute_kernel_config}
    if rows is None:
        return x if columns is None else ttnn.matmul(x, columns, **options)
    turned = ttnn.matmul(x, rows, transpose_a=True, **options)
    if columns is None:
        return ttnn.transpose(turned, -2, -1)
    return ttnn.matmul(turned, columns, transpose_a=True, **options)
