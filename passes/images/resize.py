"""Resized images: pixels that are repeated or picked, or weighted sums of rows and columns.

Before   y = upsample_nearest2d(x, …)                                    x [batch, channels, height, width]
After    y = repeat_pixels(x, 2, 2)              nearest, by whole numbers
         y = embedding(x as rows of pixels, i)   nearest, to any size: i says which pixel each new one is
         y = resample(x, rows, columns)          (bi)linear, bicubic, antialiased, and pools of windows that differ

The pixels and the weights are torch's own: its operation is applied to positions, and to the identity matrix. A sum
with weights of 0 is no pick: an infinity spreads over its row and column as NaN.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dead_code, dtype_of, replace, shape_of
from tt_dynamo.passes.images.channels_last import arguments_of
from tt_dynamo.passes.images.writer import FLOATS, ImageWriter
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rows import literal


def resize(graph: Graph, context: Context) -> int:
    """Rewrite every resizing operation; returns how many."""
    constants = constant_nodes(graph)
    rewritten = 0
    for node in list(graph.nodes):
        rule = RULES.get(node.target) if node.op == "call_function" else None
        if rule is None or node in constants or not _is_for_device(node):
            continue
        with graph.inserting_before(node):
            new = rule(ImageWriter(graph, node), *arguments_of(node))
        if new is not None:
            replace(node, new)
            rewritten += 1
    if rewritten:
        dead_code(graph)
        canonicalize(graph, context)
    return rewritten


def _is_for_device(node: Node) -> bool:
    return dtype_of(node) in FLOATS and bool(node.meta["val"].numel())


def _nearest(write: ImageWriter, x: Node, _, *scales, pick) -> Node:
    """pick: the operation on signals."""
    scales = _each(scales)
    (batch, channels, *old), size = shape_of(x), shape_of(write.like)[2:]
    picks = [
        pick(torch.arange(n, dtype=torch.float32)[None, None], [m], scale)[0, 0].long()
        for n, m, scale in zip(old, size, scales or [None] * len(old), strict=True)
    ]
    times = [len(picked) // n for n, picked in zip(old, picks, strict=True)]
    repeats = (torch.arange(n).repeat_interleave(k) for n, k in zip(old, times, strict=True))
    if len(old) < 3 and all(torch.equal(*pair) for pair in zip(picks, repeats, strict=True)):
        flat, image = write.flat(write.reshape(x, batch, channels, *([1] * (2 - len(old))), *old))
        flat = write.emit(operators.repeat_pixels, flat, image, *[1] * (2 - len(old)), *times)
    else:
        index = torch.arange(batch * math.prod(old)).reshape(batch, *old)
        for dim, picked in enumerate(picks, 1):
            index = index.index_select(dim, picked)
        flat, _ = write.flat(write.reshape(x, batch, channels, 1, math.prod(old)))
        pixels = write.reshape(flat, batch * math.prod(old), channels)
        flat = write.emit(aten.embedding.default, pixels, literal(x, index.reshape(1, -1)))
    # The permute of an image says to what follows that it is known flattened.
    last = list(size) if len(size) == 2 else [1, math.prod(size)]
    return write.reshape(write.image(flat, batch, channels, *last), *shape_of(write.like))


def _weighted(write: ImageWriter, x: Node, size, operation, align_corners, scales) -> Node:
    """The weights of an operation on signals or images: what it makes of the rows of the identity matrix."""

    def weights(old: int, new: int, scale: float | None) -> torch.Tensor:
        identity = torch.eye(old)[None]
        if len(size) == 1:
            return operation(identity, [new], align_corners, scale)[0]
        return operation(identity[None], [old, new], align_corners, None, scale)[0, 0]

    return _resampled(write, x, list(map(weights, shape_of(x)[2:], size, scales)))


def _interpolated(write: ImageWriter, x: Node, _, align_corners, *scales, operation) -> Node:
    size = shape_of(write.like)[2:]
    return _weighted(write, x, size, operation, align_corners, _each(scales) or [None] * len(size))


def _each(scales: tuple) -> Any:
    """The scale of each dimension: given as a list or None where an operation names its size or scales, else apart."""
    return scales[0] if len(scales) == 1 and not isinstance(scales[0], float) else scales


def _antialiased(write: ImageWriter, x: Node, size, align_corners, *scales) -> Node:
    return _weighted(write, x, size, write.like.target, align_corners, scales)


def _adaptive_avg_pool(write: ImageWriter, x: Node, size) -> Node | None:
    sizes = list(zip(shape_of(x)[-2:], size, strict=True))
    if not any(old % new for old, new in sizes):
        return None  # windows of one size: a pool that TTNN has (`passes/images/channels_last.py`)
    return _resampled(write, x, [F.adaptive_avg_pool1d(torch.eye(old), new) for old, new in sizes])


def _resampled(write: ImageWriter, x: Node, weights: list[torch.Tensor]) -> Node:
    """x with its last dimensions resampled by weights [old, new]; those that stay as they are need none."""
    needed = [None if torch.equal(w, torch.eye(len(w))) else literal(x, w.to(dtype_of(x))) for w in weights]
    return write.emit(operators.resample, x, *[None] * (2 - len(needed)), *needed)


NEAREST = {
    aten.upsample_nearest1d: (aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d),
    aten._upsample_nearest_exact1d: (
        aten._upsample_nearest_exact1d,
        aten._upsample_nearest_exact2d,
        aten._upsample_nearest_exact3d,
    ),
}
INTERPOLATED = (aten.upsample_linear1d, aten.upsample_bilinear2d, aten.upsample_bicubic2d)
RULES: dict[Any, Callable[..., Node | None]] = {
    **{
        overload: functools.partial(_nearest, pick=pick.default)
        for pick, packets in NEAREST.items()
        for packet in packets
        for overload in (packet.vec, packet.default)
    },
    **{
        overload: functools.partial(_interpolated, operation=packet.default)
        for packet in INTERPOLATED
        for overload in (packet.vec, packet.default)
    },
    aten._upsample_bilinear2d_aa.default: _antialiased,
    aten._upsample_bicubic2d_aa.default: _antialiased,
    aten._adaptive_avg_pool2d.default: _adaptive_avg_pool,
}
