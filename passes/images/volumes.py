"""Convolutions and pools of volumes, [batch, channels, frames, height, width], as TTNN has them.

Before   y = convolution(x, w, b, …)                 w [out, in, 1, height, width], [out, in, frames, 1, 1], or another
After    y = conv2d(x as batch * frames images)      no kernel over frames
         y = conv2d(x as images of frames rows, each of height * width pixels)      no kernel over pixels
         y = conv3d(x)                               any other
         y = rearrange(conv3d(x, boxes of w))        a transposed one: of each voxel all that it has a part in

Before   y = max_pool3d(x, …)        avg_pool3d(x, …)
After    y = max_pool2d(max_pool2d(x as images), x as frames), and so for means: windows are boxes

Flattened, a volume is an image of frames * height rows (`passes/images/writer.py`), so what acts on each element flows.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, dtype_of, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.images.writer import ImageWriter
from tt_dynamo.passes.rows import literal

Sizes = list[int]
# Of the three dimensions of a volume.
FRAMES, PIXELS = slice(0, 1), slice(1, 3)


def convolution(
    write: ImageWriter, x: Node, weight: Node, bias: Node | None, stride: Sizes, padding: Sizes, sides: Sizes,
    dilation: Sizes, groups: int,
) -> Node | None:  # fmt: skip
    """A convolution that is not transposed; sides: zeros before and after frames, rows and columns besides."""
    stride, padding, dilation = map(triple, (stride, padding, dilation))
    around = [zeros + side for zeros, side in zip(_both_sides(padding), sides, strict=True)]
    flat = _convolved(write, x, weight, bias, stride, around, dilation, groups)
    return flat and _value(write, flat, shape_of(x)[0])


def _convolved(
    write: ImageWriter, x: Node, weight: Node, bias: Node | None, stride: Sizes, around: Sizes, dilation: Sizes,
    groups: int,
) -> Node | None:  # fmt: skip
    """A convolution, flattened; around: zeros before and after frames, rows and columns.

    TTNN's conv3d gives whole tiles of channels, of which the rest is cut off. It is not told of channels that fill up
    the last one of several groups.
    """
    batch, _, *size = shape_of(x)
    out, group, *kernel = shape_of(weight)
    flat, _ = write.flat(x)
    idle = [_is_idle(kernel, stride, around, part) for part in (FRAMES, PIXELS)]
    if not any(idle):
        more = -out % TILE
        if more and groups > 1:
            return None
        if more:
            weight = write.emit(aten.constant_pad_nd.default, weight, [0] * 9 + [more], 0)
            bias = bias and write.emit(aten.constant_pad_nd.default, bias, [0, more], 0)
        bias = bias and write.reshape(bias, 1, out + more)
        flat = write.emit(operators.conv3d, flat, weight, bias, [batch, *size], stride, around, dilation, groups)
        return write.emit(aten.slice.Tensor, flat, 3, 0, out) if more else flat
    bias = bias and write.reshape(bias, 1, 1, 1, out)
    part = PIXELS if idle[0] else FRAMES
    image = _as_image(batch, size, part)
    weight = write.reshape(weight, out, group, *_pair(kernel, part, 1))
    around = [*around[2 * part.start : 2 * part.stop], 0, 0][:4]
    options = (_pair(stride, part, 1), around, _pair(dilation, part, 1), groups)
    return write.emit(operators.conv2d, flat, weight, bias, image, *options)


def transposed(
    write: ImageWriter, x: Node, weight: Node, bias: Node | None, stride: Sizes, padding: Sizes, dilation: Sizes,
    groups: int,
) -> Node | None:  # fmt: skip
    """A transposed convolution: of each voxel the channels of all of a box of `stride`, and the boxes put together.

    Along a dimension, voxel stride * m + r of what comes out reads voxel m + d of x by the kernel's element
    r + padding - stride * d. For all r, the d from `first` to `last` name each element once, and zeros beside them.
    """
    stride, padding = triple(stride), triple(padding)
    batch, _, *size = shape_of(x)
    _, out, *kernel = shape_of(weight)
    dims = list(zip(kernel, stride, padding, strict=True))
    first = [(own + step - taps) // step for taps, step, own in dims]
    last = [-(-own // step) for _, step, own in dims]
    boxes = [-(-new // step) for new, step in zip(write.shape[2:], stride, strict=True)]
    reads = [end - begin + 1 for begin, end in zip(first, last, strict=True)]
    after = [m + d - old for m, d, old in zip(boxes, last, size, strict=True)]
    if groups > 1 or set(dilation) != {1} or max(first) > 0 or min(after) < 0:
        return None
    around = [zeros for begin, more in zip(first, after, strict=True) for zeros in (-begin, more)]
    weight = _by_boxes(write, weight, dims, reads, last)
    bias = bias and write.emit(aten.repeat.default, bias, [math.prod(stride)])
    flat = _convolved(write, x, weight, bias, [1, 1, 1], around, [1, 1, 1], 1)
    if flat is None:
        return None
    whole = [m * step for m, step in zip(boxes, stride, strict=True)]
    shape = [batch, *whole, out]
    if whole == boxes:
        flat = write.reshape(flat, *shape)
    else:
        flat = write.emit(operators.rearrange, flat, [batch, *boxes, *stride, out], [0, 1, 4, 2, 5, 3, 6, 7], shape)
    for dim, (new, length) in enumerate(zip(write.shape[2:], whole, strict=True), 1):
        flat = flat if new == length else write.emit(aten.slice.Tensor, flat, dim, 0, new)
    return _value(write, write.reshape(flat, 1, 1, batch * math.prod(write.shape[2:]), out), batch)


def _by_boxes(write: ImageWriter, weight: Node, dims: list[tuple[int, int, int]], reads: Sizes, last: Sizes) -> Node:
    """weight [in, out, *kernel] -> [out of each voxel of a box, in, *reads]."""
    channels, out, *_ = shape_of(weight)
    sides: Sizes = []
    parts: Sizes = []
    for (taps, step, own), count, end in zip(dims, reads, last, strict=True):
        before = step * end - own
        sides = [before, count * step - taps - before, *sides]
        parts += [count, step]
    if any(sides):
        weight = write.emit(aten.constant_pad_nd.default, weight, sides, 0)
    weight = write.emit(aten.flip.default, write.reshape(weight, channels, out, *parts), [2, 4, 6])
    weight = write.emit(aten.permute.default, weight, [3, 5, 7, 1, 0, 2, 4, 6])
    return write.reshape(weight, out * math.prod(step for _, step, _ in dims), channels, *reads)


def pool(write: ImageWriter, x: Node, kernel: Sizes, stride: Sizes, padding: Sizes, *options: Any, of: Any) -> Node:
    """A pool of [batch, channels, frames, height, width], or of one without a batch: over pixels, then over frames."""
    x = x if len(write.shape) == 5 else write.reshape(x, 1, *shape_of(x))
    batch, _, *size = shape_of(x)
    new = list(write.shape[-3:])
    windows = kernel, stride, padding = [triple(values) for values in (kernel, stride or kernel, padding)]
    parts = [part for part in (PIXELS, FRAMES) if not _is_idle(kernel, stride, _both_sides(padding), part)]
    flat, _ = write.flat(x)
    for part in parts:
        own = [_pair(list(o), part, 1) if isinstance(o, (list, tuple)) else o for o in options]
        if of is operators.avg_pool2d and own[-1] is not None and part != parts[-1]:
            own[-1] = 1  # a sum, which is divided at last
        image = _as_image(batch, size, part)
        windowed = [_pair(values, part, default) for values, default in zip(windows, (1, 1, 0), strict=True)]
        flat = write.emit(of, flat, image, *windowed, *own)
        size[part] = new[part]
    return _value(write, flat, batch)


def adaptive_pool(write: ImageWriter, x: Node, size: Sizes, of: Any) -> Node | None:
    """A pool into boxes: into equal ones, or as a mean with weights."""
    sizes = list(zip(shape_of(x)[-3:], size, strict=True))
    means = of is operators.avg_pool2d
    if any(old % new for old, new in sizes):
        weights = [F.adaptive_avg_pool1d(torch.eye(old), new) for old, new in sizes]
        return resampled(write, x, weights) if means else None
    kernel = [old // new for old, new in sizes]
    if means and set(size) == {1} and len(write.shape) == 5:  # all pixels at once
        (flat, image), batch = write.flat(x), write.shape[0]
        return _value(write, write.emit(of, flat, image, *[image[1:]] * 2, [0, 0], False, True, None), batch)
    return pool(write, x, kernel, kernel, [0], *((False, True, None) if means else ([1], False)), of=of)


def weighted(write: ImageWriter, x: Node, _, align_corners: bool, *scales: Any) -> Node:
    """Trilinear interpolation."""
    sizes = list(zip(shape_of(x)[2:], write.shape[2:], strict=True))
    if len(scales) == 1 and not isinstance(scales[0], float):  # one argument for all dimensions
        scales = scales[0] or (None,) * 3

    def weights(size: tuple[int, int], scale: float | None) -> torch.Tensor:
        line = torch.eye(size[0])[None]
        return aten.upsample_linear1d.default(line, [size[1]], align_corners, scale)[0]

    return resampled(write, x, list(map(weights, sizes, scales)))


def resampled(write: ImageWriter, x: Node, weights: list[torch.Tensor]) -> Node:
    """x with its last three dimensions resampled by weights [old, new]: rows and columns, then frames."""
    needed = [None if torch.equal(w, torch.eye(len(w))) else literal(x, w.to(dtype_of(x))) for w in weights]
    *lead, frames, _, _ = shape_of(x)
    *_, height, width = write.shape
    if any(needed[1:]):
        x = write.emit(operators.resample, x, *needed[1:])
    if needed[0] is None:
        return x
    x = write.emit(operators.resample, write.reshape(x, *lead, frames, height * width), needed[0], None)
    return write.reshape(x, *write.shape)


def triple(values: Sizes) -> Sizes:
    return list(values) * 3 if len(values) == 1 else list(values)


def _both_sides(padding: Sizes) -> Sizes:
    return [zeros for own in padding for zeros in (own, own)]


def _is_idle(kernel: Sizes, stride: Sizes, around: Sizes, part: slice) -> bool:
    """Whether nothing happens along some of the dimensions."""
    return set(kernel[part]) == set(stride[part]) == {1} and not any(around[2 * part.start : 2 * part.stop])


def _as_image(batch: int, size: Sizes, part: slice) -> Sizes:
    """Batch, height and width of the images in which some dimensions of a volume, pixels or frames, are the image."""
    frames, height, width = size
    return [batch * frames, height, width] if part.start else [batch, frames, height * width]


def _pair(values: Sizes, part: slice, default: int) -> Sizes:
    return [*triple(values)[part], default][:2]


def _value(write: ImageWriter, flat: Node, batch: int) -> Node:
    *_, frames, height, width = write.shape
    return write.value(flat, [batch, frames * height, width])
