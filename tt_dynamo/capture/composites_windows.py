"""Decompositions of sums over windows of images into products with constant matrices, one along each dimension.

A window is a product of an interval of rows and one of columns, so a sum over windows is a product of matrices:
out = rows x columnsᵀ. The matrices depend on sizes alone and are folded into constants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tt_dynamo.capture.composites import composite

aten = torch.ops.aten


def _reads(size: int, kernel: int, count: int, stride: int, padding: int, dilation: int, like: Tensor) -> Tensor:
    """[size, kernel, count]: 1.0 where element i of window l reads position y, y = i dilation + l stride - padding."""
    position = _numbers(size, like).view(-1, 1, 1)
    element = _numbers(kernel, like).view(1, -1, 1) * dilation
    window = _numbers(count, like).view(1, 1, -1) * stride
    return (position == element + window - padding).to(like.dtype)


def _numbers(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, dtype=torch.int64, device=like.device)


def _pair(values: Sequence[int], default: Sequence[int] = ()) -> tuple[int, int]:
    values = values or default
    return (values[0], values[-1])


@composite(aten.avg_pool2d_backward.default)
def avg_pool2d_backward(
    grad: Tensor, x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    ceil_mode: bool, count_include_pad: bool, divisor_override: int | None,
) -> Any:  # fmt: skip
    """grad [..., windows down, windows across] spread over the windows' positions: the shape of x [..., H, W]."""
    factors = []
    geometry = zip(_pair(kernel_size), _pair(stride, kernel_size), _pair(padding), strict=True)
    for (kernel, step, pad), size, count in zip(geometry, x.shape[-2:], grad.shape[-2:], strict=True):
        start = _numbers(count, x) * step - pad
        end = (start + kernel).clamp(max=size + pad)
        if not count_include_pad:
            start, end = start.clamp(min=0), end.clamp(max=size)
        reads = _reads(size, kernel, count, step, pad, 1, x).sum(1)
        factors.append(reads if divisor_override else reads / (end - start).to(x.dtype))
    spread = factors[0] @ grad @ factors[1].mT
    return spread / divisor_override if divisor_override else spread


@composite(aten._adaptive_avg_pool2d_backward.default)
def adaptive_avg_pool2d_backward(grad: Tensor, x: Tensor) -> Tensor:
    """The same for windows from floor(l H / count) to ceil((l + 1) H / count)."""
    factors = []
    for size, count in zip(x.shape[-2:], grad.shape[-2:], strict=True):
        window = _numbers(count, x)
        start, end = window * size // count, -(-(window + 1) * size // count)
        position = _numbers(size, x).unsqueeze(1)
        inside = (position >= start) & (position < end)
        factors.append(inside.to(x.dtype) / (end - start).to(x.dtype))
    return factors[0] @ grad @ factors[1].mT


@composite(aten.col2im.default)
def col2im(
    x: Tensor, output_size: Sequence[int], kernel_size: Sequence[int], dilation: Sequence[int], padding: Sequence[int],
    stride: Sequence[int],
) -> Any:  # fmt: skip
    """Columns x [batch, channels kernel, windows] added up where their windows lie: [batch, channels, *output_size]."""
    if not x.is_floating_point() or not x.numel():
        return NotImplemented
    sizes, kernels = _pair(output_size), _pair(kernel_size)
    geometry = list(zip(_pair(stride), _pair(padding), _pair(dilation), strict=True))
    counts = [
        (size + 2 * pad - gap * (kernel - 1) - 1) // step + 1
        for size, kernel, (step, pad, gap) in zip(sizes, kernels, geometry, strict=True)
    ]
    batch, channels = x.shape[:-2], x.shape[-2] // math.prod(kernels)
    columns = x.reshape(-1, *kernels, *counts).permute(0, 1, 3, 2, 4)
    columns = columns.reshape(-1, kernels[0] * counts[0], kernels[1] * counts[1])
    rows, across = (
        _reads(size, kernel, count, step, pad, gap, x).reshape(size, -1)
        for size, kernel, count, (step, pad, gap) in zip(sizes, kernels, counts, geometry, strict=True)
    )
    return (rows @ columns @ across.mT).reshape(*batch, channels, *sizes)
