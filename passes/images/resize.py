"""Resized images: pixels that are repeated or picked, or weighted sums of rows and columns.

Before   y = upsample_nearest2d(x, …)                                    x [batch, channels, height, width]
After    y = repeat_pixels(x, 2, 2)              nearest, by whole numbers
         y = embedding(x as rows of pixels, i)   nearest, to any size: i says which pixel each new one is
         y = resample(x, rows, columns)          (bi)linear, bicubic, antialiased, and pools of windows that differ

The pixels and the weights are torch's own: its operation is applied to the places of pixels, and to the identity
matrix. A sum with weights of 0 is no pick: an infinity spreads over its row and column as NaN.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, dtype_of, shape_of
from tt_dynamo.passes.images.writer import ImageWriter
from tt_dynamo.passes.rows import literal


def _nearest(write: ImageWriter, x: Node, *options: Any) -> Node:
    batch, channels, *old = shape_of(x)
    places = torch.stack(torch.meshgrid(*map(torch.arange, old), indexing="ij")).float()
    numbers = torch.arange(math.prod(old)).reshape(old)
    picked = numbers[tuple(write.like.target(places[None], *options)[0].long())]
    times, repeated = [new // n for n, new in zip(old, picked.shape, strict=True)], numbers
    for dim, count in enumerate(times):
        repeated = repeated.repeat_interleave(count, dim)
    flat, image = write.flat(x if len(old) < 3 else write.reshape(x, batch, channels, 1, numbers.numel()))
    if len(old) < 3 and torch.equal(picked, repeated):
        flat = write.emit(operators.repeat_pixels, flat, image, *[1, *times][-2:])
    else:
        index = torch.arange(batch)[:, None] * numbers.numel() + picked.reshape(1, -1)
        pixels = write.reshape(flat, batch * numbers.numel(), channels)
        rows = write.emit(aten.embedding.default, pixels, literal(x, index.reshape(1, -1)))
        flat = write.reshape(rows, 1, *shape_of(rows))
    *before, width = picked.shape
    return write.value(flat, [batch, math.prod(before), width])


def _weighted(write: ImageWriter, x: Node, _, align_corners: bool, *scales: Any, operation: Any) -> Node:
    """operation: the same on images. Its weights along a dimension are what it makes of the identity matrix."""
    sizes = list(zip(shape_of(x)[2:], write.shape[2:], strict=True))
    if len(scales) == 1 and not isinstance(scales[0], float):  # one argument for all dimensions
        scales = scales[0] or (None,) * len(sizes)

    def weights(size: tuple[int, int], scale: float | None) -> torch.Tensor:
        return operation(torch.eye(size[0])[None, None], size, align_corners, None, scale)[0, 0]

    return resample(write, x, list(map(weights, sizes, scales)))


def resample(write: ImageWriter, x: Node, weights: list[torch.Tensor]) -> Node:
    """x with its last dimensions resampled by weights [old, new]; those that stay as they are need none."""
    needed = [None if torch.equal(w, torch.eye(len(w))) else literal(x, w.to(dtype_of(x))) for w in weights]
    return write.emit(operators.resample, x, *[None] * (2 - len(needed)), *needed)


NEAREST = [
    getattr(aten, f"{way}{rank}d") for way in ("upsample_nearest", "_upsample_nearest_exact") for rank in (1, 2, 3)
]
IMAGES = (aten.upsample_bilinear2d, aten.upsample_bicubic2d, aten._upsample_bilinear2d_aa, aten._upsample_bicubic2d_aa)
WEIGHTED = {aten.upsample_linear1d: aten.upsample_bilinear2d, **dict(zip(IMAGES, IMAGES, strict=True))}
BY_PACKET: dict[Any, Callable[..., Node | None]] = {
    **dict.fromkeys(NEAREST, _nearest),
    **{packet: functools.partial(_weighted, operation=same.default) for packet, same in WEIGHTED.items()},
}
RULES = {overload: rule for packet, rule in BY_PACKET.items() for overload in (packet.vec, packet.default)}
