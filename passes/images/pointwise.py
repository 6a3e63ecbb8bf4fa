"""What flows on channels last: operations that care for no layout, once an image is known flattened.

Before   z = relu(x + y), cat(x, y, 1), mean(x, [2, 3]), reshape(x, [batch, -1]) @ w             x an image that
After    the same of x flattened, [1, 1, batch * height * width, channels]                      lies channels last

A constant by channel is [1, 1, 1, channels] there. A number by image and channel is that too where there is one image;
those of several are looked up for the pixels of each, so that the images stay as they lie. The rows of a linear behind
the flattening of an image are put into the order of its pixels, which are constants.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, dtype_of, is_call, shape_of
from tt_dynamo.passes.images.writer import FLOATS, TO_NHWC, Flat, ImageWriter
from tt_dynamo.passes.rows import literal

TILE = 32


def pointwise(write: ImageWriter, node: Node) -> Node | None:
    """An operation on each element, of images and of what broadcasts with them."""
    shape = shape_of(node)
    flats = [write.find(x) if isinstance(x, Node) and shape_of(x) == shape else None for x in node.args]
    first = next((flat for flat in flats if flat is not None), None)
    if first is None or any(isinstance(x, Node) for x in node.kwargs.values()):
        return None
    operands = [_operand(write, x, flat, first, shape) for x, flat in zip(node.args, flats, strict=True)]
    if any(operand is None and x is not None for operand, x in zip(operands, node.args, strict=True)):
        return None
    flat = write.emit(node.target, *operands, **node.kwargs)
    return write.value(flat, first.image, like=shape, last=first.dim == 3)


def _operand(write: ImageWriter, x: Any, flat: Flat | None, first: Flat, shape: tuple[int, ...]) -> Any:
    """An operand as it stands beside images flattened as `first`; None where it cannot."""
    if not isinstance(x, Node):
        return x
    if dtype_of(x) not in FLOATS:
        return None
    if flat is not None:
        return flat.node if flat.image == first.image and flat.dim == first.dim else None
    own = (1,) * (len(shape) - len(shape_of(x))) + shape_of(x)
    if math.prod(own) == 1:
        return x if not shape_of(x) else write.reshape(x, 1, 1, 1, 1)
    by_channel = tuple(size if dim == first.dim else 1 for dim, size in enumerate(shape))
    if own == by_channel:
        return write.reshape(x, 1, 1, 1, shape[first.dim])
    if len(shape) == 4 and own == tuple(size if dim in (0, first.dim) else 1 for dim, size in enumerate(shape)):
        known = write.find(x)
        numbers = write.reshape(x if known is None else known.node, 1, 1, shape[0], shape[first.dim])
        return _by_pixel(write, numbers, first)
    return write.flat(write.reshape(x, *own))[0] if len(shape) == 4 and own == shape and first.dim == 1 else None


def _by_pixel(write: ImageWriter, numbers: Node, first: Flat) -> Node:
    """Numbers by image and channel, [1, 1, batch, channels], at each pixel of their image."""
    if first.batch == 1:
        return numbers
    pixels = first.height * first.width
    images = torch.arange(first.batch).repeat_interleave(pixels)[None]
    table = write.reshape(numbers, first.batch, shape_of(numbers)[-1])
    index = literal(numbers, images, f"image_of_{first.batch}_by_{pixels}")
    rows = write.emit(aten.embedding.default, table, index)
    return write.reshape(rows, 1, *shape_of(rows))


def cat(write: ImageWriter, node: Node) -> Node | None:
    """Channels of several images."""
    parts, dim = (*node.args, 0)[:2]
    found = [write.find(part) for part in parts]
    first = next((flat for flat in found if flat is not None), None)
    if first is None or len(shape_of(node)) != 4 or {first.dim, dim % 4} != {1}:
        return None
    flat = write.emit(aten.cat.default, [write.flat(part)[0] for part in parts], 3)
    return write.value(flat, first.image, like=shape_of(node))


def channels(write: ImageWriter, node: Node) -> Node | None:
    """Some of an image's channels."""
    x, dim, *where = (*node.args, 0) if len(node.args) < 2 else node.args
    flat = write.find(x)
    if flat is None or dim % len(shape_of(x)) != flat.dim or node.kwargs:
        return None
    picked = write.emit(aten.slice.Tensor, flat.node, 3, *where)
    return write.value(picked, flat.image, like=shape_of(node), last=flat.dim == 3)


def part(write: ImageWriter, node: Node) -> Node | None:
    """One of the parts into which an image's channels are split."""
    split, index = node.args
    if not is_call(split, aten.split_with_sizes.default, aten.split.Tensor):
        return None
    x, dim = split.args[0], (*split.args[2:], split.kwargs.get("dim", 0))[0]
    flat = write.find(x)
    if flat is None or dim % len(shape_of(x)) != flat.dim:
        return None
    start, size = sum(val.shape[dim] for val in split.meta["val"][:index]), shape_of(node)[dim]
    picked = write.emit(aten.slice.Tensor, flat.node, 3, start, start + size)
    return write.value(picked, flat.image, like=shape_of(node), last=flat.dim == 3)


def mean(write: ImageWriter, node: Node) -> Node | None:
    """The mean of each channel of each image."""
    x, dims, keep = (*node.args, False)[:3]
    flat = write.find(x)
    if flat is None or len(shape_of(x)) != 4 or node.kwargs:
        return None
    if {*range(4)} - {dim % 4 for dim in dims or ()} != {0, flat.dim}:
        return None
    whole = [flat.height, flat.width]
    pooled = write.emit(operators.avg_pool2d, flat.node, flat.image, whole, whole, [0, 0], False, True, None)
    if keep:
        return write.value(pooled, [flat.batch, 1, 1], like=shape_of(node), last=flat.dim == 3)
    return write.reshape(pooled, *shape_of(node))


def layer_norm(write: ImageWriter, node: Node) -> Node | None:
    """A norm of each pixel's channels, which stand last."""
    x, normalized, *rest = node.args
    flat = write.find(x)
    if flat is None or flat.dim != 3 or len(normalized) != 1:
        return None
    normed = write.emit(node.target, flat.node, normalized, *rest, **node.kwargs)
    return write.value(normed, flat.image, like=shape_of(node), last=True)


def linear(write: ImageWriter, node: Node) -> Node | None:
    """A linear of each pixel's channels, or over all of an image: x [batch, channels * height * width]."""
    x, weight, *rest = node.args
    pixels = write.find(x)
    if pixels is not None and pixels.dim == 3:
        mixed = write.emit(operators.linear, pixels.node, weight, *rest, **node.kwargs)
        return write.value(mixed, pixels.image, like=shape_of(node), last=True)
    if not is_call(x, aten.reshape.default):
        return None
    flat = write.find(x.args[0])
    if flat is None or flat.dim != 1 or len(shape_of(x.args[0])) != 4 or shape_of(x)[:-1] != (flat.batch,):
        return None
    count, (inner, out) = shape_of(flat.node)[-1], shape_of(weight)
    rows = write.reshape(flat.node, flat.batch, inner)
    order = write.reshape(weight, count, flat.height, flat.width, out)
    order = write.emit(aten.permute.default, order, [1, 2, 0, 3])
    return write.emit(operators.linear, rows, write.reshape(order, inner, out), *rest, **node.kwargs)


def group_norm(write: ImageWriter, node: Node) -> Node | None:
    """A norm of groups of channels, without weight and bias (`passes/images/affine.py`), of whole tiles.

    TTNN's takes what pads channels to a tile for channels, and takes out what pads pixels in bfloat16, without a word.
    """
    x, groups, weight, bias, eps, *_ = node.args
    flat = write.find(x)
    if flat is None or flat.dim != 1 or weight is not None or bias is not None:
        return None
    if shape_of(flat.node)[-1] % TILE or flat.height * flat.width % TILE:
        return None
    normed = write.emit(operators.group_norm, flat.node, flat.image, groups, eps)
    return write.value(normed, flat.image, like=shape_of(node))


def rearrange(write: ImageWriter, node: Node) -> Node | None:
    """Parts of channels, rows and columns that become others: reshape(permute(reshape(x))), as pixels are shuffled."""
    moved = node.args[0]
    split = moved.args[0] if is_call(moved, aten.permute.default) else None
    if split is None or not is_call(split, aten.reshape.default):
        return None
    x, sizes, order = split.args[0], shape_of(split), moved.args[1]
    flat = write.find(x)
    if flat is None or flat.dim != 1 or len(shape_of(x)) != 4 or len(shape_of(node)) != 4:
        return None
    given, made = _parts(sizes, shape_of(x)), _parts(shape_of(moved), shape_of(node))
    if given is None or made is None:
        return None
    source = [part for dim in TO_NHWC for part in given[dim] if sizes[part] > 1]
    target = [order[part] for dim in TO_NHWC for part in made[dim] if sizes[order[part]] > 1]
    batch, channels, height, width = shape_of(node)
    new = [1, 1, batch * height * width, channels]
    runs: list[list[int]] = []  # of parts that stay side by side
    for place in map(source.index, target):
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    places = sorted(runs)
    whole = [math.prod(sizes[source[part]] for part in run) for run in places]
    moved = write.emit(operators.rearrange, flat.node, whole, [places.index(run) for run in runs], new)
    return write.value(moved, [batch, height, width], like=shape_of(node))


def _parts(sizes: tuple[int, ...], shape: tuple[int, ...]) -> list[list[int]] | None:
    """Which of several neighbouring sizes make up each of a shape; None where one is of two."""
    found, start = [], 0
    for whole in shape:
        stop = start
        while math.prod(sizes[start:stop]) < whole:
            stop += 1
        if math.prod(sizes[start:stop]) != whole:
            return None
        found.append(list(range(start, stop)))
        start = stop
    return found


RULES: dict[Any, Callable[[ImageWriter, Node], Node | None]] = {
    aten.cat.default: cat,
    aten.group_norm.default: group_norm,
    aten.slice.Tensor: channels,
    operator.getitem: part,
    aten.layer_norm.default: layer_norm,
    aten.mean.dim: mean,
    aten.reshape.default: rearrange,
    operators.linear: linear,
}

UNTAGGED = (aten.hardswish.default, aten._prelu_kernel.default)  # pointwise, though torch does not say so


def rule_of(node: Node) -> Callable[[ImageWriter, Node], Node | None] | None:
    """The rule by which a node flows on; None where it cares for the layout."""
    if node.target in RULES:
        return RULES[node.target]
    tags = node.target.tags if isinstance(node.target, torch._ops.OpOverload) else ()
    is_pointwise = torch.Tag.pointwise in tags or node.target in UNTAGGED
    return pointwise if is_pointwise and isinstance(node.meta.get("val"), torch.Tensor) else None
