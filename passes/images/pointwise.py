"""What flows on channels last: operations that care for no layout, once an image is known flattened.

Before   z = relu(x + y), cat(x, y, 1), mean(x, [2, 3]), reshape(x, [batch, -1]) @ w             x an image that
After    the same of x flattened, [1, 1, batch * height * width, channels]                      lies channels last

A constant by channel is [1, 1, 1, channels] there. Numbers by image and channel are looked up for each pixel, so that
images stay as they lie. The rows of a linear behind a flattened image, all constants, take the order of its pixels.
"""

import bisect
import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, dtype_of, is_call, only_user, shape_of
from tt_dynamo.passes.images.crops import crop
from tt_dynamo.passes.images.writer import TO_NHWC, Flat, ImageWriter
from tt_dynamo.passes.rewrite import FLOATS, arguments
from tt_dynamo.passes.rows import literal

TILE = 32
NOT_TAGGED = (aten.hardswish.default, aten._prelu_kernel.default)  # pointwise, though torch does not say so


def elementwise(write: ImageWriter, *_: Any) -> Node | None:
    """An operation on each element, of images and of what broadcasts with them."""
    node = write.like
    is_pointwise = torch.Tag.pointwise in getattr(node.target, "tags", ()) or node.target in NOT_TAGGED
    if not is_pointwise or not isinstance(node.meta["val"], torch.Tensor):
        return None
    flats = [write.find(x) if isinstance(x, Node) and shape_of(x) == write.shape else None for x in node.args]
    first = next(filter(None, flats), None) or _plane(write)
    if first is None or any(isinstance(x, Node) for x in node.kwargs.values()):
        return None
    operands = [_operand(write, x, flat, first) for x, flat in zip(node.args, flats, strict=True)]
    if any(operand is None and x is not None for operand, x in zip(operands, node.args, strict=True)):
        return None
    return write.value(write.emit(node.target, *operands, **node.kwargs), first.image, first.dim)


def _plane(write: ImageWriter) -> Flat | None:
    """An operand of one channel at each pixel of what is written: a gate of what has channels alone."""
    operands = [x for x in write.like.args if isinstance(x, Node) and _is_plane(x, write.shape)]
    return next(filter(None, (write.find(x, 1) for x in operands)), None)


def _is_plane(x: Node, shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape_of(x) == (shape[0], 1, *shape[2:])


def _operand(write: ImageWriter, x: Any, flat: Flat | None, first: Flat) -> Any:
    """An operand as it stands beside images flattened as `first`; None where it cannot."""
    if not isinstance(x, Node):
        return x
    if dtype_of(x) not in FLOATS:
        return None
    if flat is not None:
        return flat.node if (flat.image, flat.dim) == (first.image, first.dim) else None
    shape, rank = write.shape, len(write.shape)
    own = (1,) * (rank - len(shape_of(x))) + shape_of(x)

    def varies_along(*dims: int) -> bool:
        return own == tuple(size if dim in dims else 1 for dim, size in enumerate(shape))

    if varies_along():
        return x if not shape_of(x) else write.reshape(x, 1, 1, 1, 1)
    if varies_along(first.dim):
        return write.reshape(x, 1, 1, 1, shape[first.dim])
    if first.dim == 1 and _is_plane(x, shape):
        return write.flat(x)[0]
    if rank == 4 and varies_along(0, first.dim):
        known = write.find(x)
        numbers = write.reshape(known.node if known else x, 1, 1, shape[0], shape[first.dim])
        return _by_pixel(write, numbers, first)
    return write.flat(write.reshape(x, *own))[0] if rank == 4 and own == shape and first.dim == 1 else None


def _by_pixel(write: ImageWriter, numbers: Node, first: Flat) -> Node:
    """Numbers by image and channel, [1, 1, batch, channels], at each pixel of their image."""
    batch, height, width = first.image
    if batch == 1:
        return numbers
    images = torch.arange(batch).repeat_interleave(height * width)[None]
    index = literal(numbers, images, f"image_of_{batch}_by_{height * width}")
    rows = write.emit(aten.embedding.default, write.reshape(numbers, batch, shape_of(numbers)[-1]), index)
    return write.reshape(rows, 1, *shape_of(rows))


def _cat(write: ImageWriter, parts: list[Node], dim: int) -> Node | None:
    """Channels of several images, or the pixels of several signals, each of which lies in one piece."""
    flats = [write.find(part, 1) for part in parts]
    first = next(filter(None, flats), None)
    rank = len(write.shape)
    if rank == 3 and dim % rank == 2 and write.shape[0] == 1 and all(flats):
        joined = write.emit(aten.cat.default, [flat.node for flat in flats if flat], 2)
        return write.value(joined, [1, 1, write.shape[2]])
    # Of a signal that is an image of one row, such as a model's result, most channels must lie so.
    lying = sum(shape_of(part)[1] for part, flat in zip(parts, flats, strict=True) if flat)
    if first is None or dim % rank != 1 or (rank == 3 and 2 * lying <= write.shape[1]):
        return None
    return write.value(write.emit(aten.cat.default, [write.flat(part)[0] for part in parts], 3), first.image)


def _channels(write: ImageWriter, x: Node, dim: int, *which: Any) -> Node | None:
    """Some of an image's channels."""
    flat = write.find(x, dim % len(shape_of(x)))
    return flat and write.pixelwise(aten.slice.Tensor, flat, 3, *which)


def _slice(write: ImageWriter, x: Node, dim: int, *which: Any) -> Node | None:
    """Some of an image's channels, rows or columns."""
    return _channels(write, x, dim, *which) or crop(write, x, dim, *which)


def _select(write: ImageWriter, x: Node, dim: int, index: int) -> Node | None:
    """One step of one signal; within a tile it is looked up, which writes tiles again."""
    flat, shape = write.find(x, 1), shape_of(x)
    if flat is None or len(shape) != 3 or shape[0] != 1 or dim % 3 != 2:
        return None
    step = index % shape[2]
    if step % TILE:
        row = write.emit(operators.look_up, flat.node, literal(flat.node, torch.tensor([[step]])))
    else:
        row = write.emit(aten.slice.Tensor, flat.node, 2, step, step + 1)
    return write.reshape(row, *write.shape)


def _part(write: ImageWriter, split: Node, index: int) -> Node | None:
    """One of the parts into which an image's channels are split."""
    if not is_call(split, aten.split_with_sizes.default, aten.split.Tensor):
        return None
    x, _, dim = arguments(split).values()
    start = sum(part.shape[dim] for part in split.meta["val"][:index])
    return _channels(write, x, dim, start, start + write.shape[dim])


def _mean(write: ImageWriter, x: Node, dims: list[int] | None, keep: bool, dtype: torch.dtype | None) -> Node | None:
    """The mean of each channel of each image."""
    flat = write.find(x)
    rank = len(shape_of(x))
    kept = {*range(rank)} - {dim % rank for dim in dims or ()}
    if flat is None or rank not in (4, 5) or dtype is not None or kept != {0, flat.dim}:
        return None
    batch, *whole = flat.image
    pooled = write.emit(operators.avg_pool2d, flat.node, flat.image, whole, whole, [0, 0], False, True, None)
    return write.value(pooled, [batch, 1, 1], flat.dim) if keep else write.reshape(pooled, *write.shape)


def _layer_norm(write: ImageWriter, x: Node, normalized: list[int], *options: Any) -> Node | None:
    """A norm of each pixel's channels, which stand last."""
    flat = write.find(x, 3)
    if flat is None or len(normalized) != 1:
        return None
    return write.pixelwise(aten.layer_norm.default, flat, normalized, *options)


def _linear(write: ImageWriter, x: Node, weight: Node, *_: Any) -> Node | None:
    """A linear of each pixel's channels, or over all of an image: x [batch, channels * height * width]."""
    rest = write.like.args[2:]
    pixels = write.find(x, 3)
    if pixels is not None:
        return write.pixelwise(operators.linear, pixels, weight, *rest)
    source = x.args[0] if is_call(x, aten.reshape.default) else None
    flat = write.find(source, 1)
    if flat is None or len(shape_of(source)) != 4 or shape_of(x)[:-1] != (flat.image[0],):
        return None
    batch, *pixel = flat.image
    inner, out = shape_of(weight)
    order = write.reshape(weight, shape_of(flat.node)[-1], *pixel, out)
    order = write.emit(aten.permute.default, order, [1, 2, 0, 3])
    rows = write.reshape(flat.node, batch, inner)
    return write.emit(operators.linear, rows, write.reshape(order, inner, out), *rest)


def _group_norm(write: ImageWriter, x: Node, groups: int, weight: Node | None, bias: Node | None, eps: float, _):
    """A norm of groups of channels, without weight and bias (`passes/images/norms.py`), of whole tiles.

    TTNN's takes what pads channels to a tile for channels, and takes out what pads pixels in bfloat16, without a word.
    """
    flat = write.find(x, 1)
    if flat is None or (weight, bias) != (None, None):
        return None
    if groups == shape_of(flat.node)[-1]:
        return _norm_by_sums(write, flat, [2], eps)
    if shape_of(flat.node)[-1] % TILE == math.prod(flat.image[1:]) % TILE == 0:
        return write.pixelwise(operators.group_norm, flat, flat.image, groups, eps)
    return _norm_by_sums(write, flat, [2, 3], eps) if groups == 1 else None


def _norm_by_sums(write: ImageWriter, flat: Flat, dims: list[int], eps: float) -> Node:
    """Each channel of each image by itself, or each image: TTNN's group norm has no such groups, and sums move nothing.

    dims: of images [batch, 1, pixels, channels]. Source: Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022
    """
    channels, (batch, *size) = shape_of(flat.node)[-1], flat.image
    images = write.reshape(flat.node, batch, 1, math.prod(size), channels)
    mean = write.emit(aten.mean.dim, images, dims, True)
    centered = write.emit(aten.sub.Tensor, images, mean)
    variance = write.emit(aten.var.correction, images, dims, correction=0, keepdim=True)
    factor = write.emit(aten.rsqrt.default, write.emit(aten.add.Tensor, variance, eps))
    normalized = write.emit(aten.mul.Tensor, centered, factor)
    return write.value(write.reshape(normalized, *shape_of(flat.node)), flat.image)


def _softmax(write: ImageWriter, x: Node, dim: int, *_: Any) -> Node | None:
    """Over the channels of what a convolution reads: expected distances of boxes."""
    reader = only_user(write.like)
    if len(write.shape) != 4 or dim % 4 != 1 or reader is None or not is_call(reader, aten.convolution.default):
        return None
    flat, image = write.flat(x)
    return write.value(write.emit(aten.softmax.int, flat, -1), image)


def _reshape(write: ImageWriter, x: Node, shape: list[int]) -> Node | None:
    """An image as a signal, where its pixels are joined with those of others; or its parts in another order."""
    flat = write.find(x, 1)
    is_joined = any(is_call(user, aten.cat.default) for user in write.like.users)
    if flat is not None and is_joined and len(shape_of(x)) == 4 and len(write.shape) == 3:
        batch, channels, *size = shape_of(x)
        if write.shape == (batch, channels, math.prod(size)):
            return write.value(flat.node, [batch, 1, math.prod(size)])
    return _rearrange(write, x)


def _rearrange(write: ImageWriter, moved: Node) -> Node | None:
    """Parts of channels, rows and columns that become others: reshape(permute(reshape(x))), as pixels are shuffled."""
    if not is_call(moved, aten.permute.default) or not is_call(moved.args[0], aten.reshape.default):
        return None
    split, order = moved.args
    x, sizes = split.args[0], shape_of(split)
    flat = write.find(x, 1)
    if flat is None or len(shape_of(x)) != 4 or len(write.shape) != 4:
        return None
    given, made = _channels_last(sizes, shape_of(x)), _channels_last(shape_of(moved), write.shape)
    if given is None or made is None:
        return None
    source = [part for part in given if sizes[part] > 1]
    places = [source.index(order[part]) for part in made if sizes[order[part]] > 1]
    side_by_side = itertools.groupby(enumerate(places), lambda numbered: numbered[1] - numbered[0])
    runs = [[place for _, place in run] for _, run in side_by_side]
    whole = [math.prod(sizes[source[place]] for place in run) for run in sorted(runs)]
    batch, channels, height, width = write.shape
    new = [1, 1, batch * height * width, channels]
    moved = write.emit(operators.rearrange, flat.node, whole, [sorted(runs).index(run) for run in runs], new)
    return write.value(moved, [batch, height, width])


def _channels_last(sizes: tuple[int, ...], shape: tuple[int, ...]) -> list[int] | None:
    """The parts of an image's dimensions in their order once its channels stand last; None where one is of two."""
    ends, products = (list(itertools.accumulate(numbers, operator.mul)) for numbers in (shape, sizes))
    if not {*ends} <= {*products, 1}:
        return None
    dims = [bisect.bisect_left(ends, product) for product in products]
    return sorted(range(len(sizes)), key=lambda part: TO_NHWC.index(dims[part]))


RULES: dict[Any, Callable[..., Node | None]] = {
    aten.cat.default: _cat,
    aten.group_norm.default: _group_norm,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    operator.getitem: _part,
    aten.layer_norm.default: _layer_norm,
    aten.mean.dim: _mean,
    aten.reshape.default: _reshape,
    aten.softmax.int: _softmax,
    operators.linear: _linear,
}
