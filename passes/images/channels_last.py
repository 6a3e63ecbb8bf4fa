"""Convolutions, pools and resized images as TTNN has them: channels last, flattened, with the moves there and back.

Before   y = convolution(x, w, b, …)                                     x [batch, channels, height, width]
After    y = permute(reshape(conv2d(reshape(permute(x, NHWC), [1, 1, n h w, c]), w, b, …), [n, h', w', o]), NCHW)

What follows takes the flattened image where it can, be it another of these or an operation on each element
(`passes/images/pointwise.py`), so nothing moves in between. Zeros around the image of a convolution become its padding.
A convolution of one pixel is a linear. Indices of maxima that something reads stay as they are. What there is of
volumes: `passes/images/volumes.py`.

Before   y = upsample_nearest2d(x, …)
After    y = repeat_pixels(x, 2, 2)              nearest, by whole numbers
         y = matmul(picks, x)                    the same of a small image whose pixels fill no tiles
         y = embedding(x as rows of pixels, i)   nearest, to any size: i says which pixel each new one is
         y = resample(x, rows, columns)          (bi)linear, bicubic, antialiased, and means of windows that differ

The pixels and the weights are torch's own: its operation is applied to the places of pixels, and to the identity
matrix. A sum with weights of 0 is no pick: an infinity spreads over its row and column, or its channel, as NaN.
"""

import itertools
import math
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.images import pointwise, sampling, volumes
from tt_dynamo.passes.images.split_convolutions import ACTIVATIONS
from tt_dynamo.passes.images.writer import Flat, ImageWriter, pair
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import FLOATS, arguments
from tt_dynamo.passes.rows import literal

MOST_PRODUCTS = 1 << 28  # of picks and numbers


def channels_last(graph: Graph, context: Context) -> int:
    """Rewrite every convolution, pool and resizing that TTNN has, and what they flow through; returns how many."""
    constants = constant_nodes(graph)
    known: dict[Node, Flat] = {}
    rewritten = 0
    for node in list(graph.nodes):
        result = None if node.op != "call_function" or node in constants else result_of(node)
        if result is None or dtype_of(result) not in FLOATS or not result.meta["val"].numel():
            continue
        rule = RULES.get(node.target, pointwise.elementwise)
        with graph.inserting_before(node):
            new = rule(ImageWriter(node, known), *arguments(node).values())
        if new is not None:
            replace(result, new)
            rewritten += 1
    dead_code(graph)
    if rewritten:
        canonicalize(graph, context)  # moves that meet those of the model
    return rewritten


def result_of(node: Node) -> Node | None:
    """The value that something reads of a node, of several results the first alone; None where it reads others."""
    if isinstance(node.meta.get("val"), torch.Tensor):
        return node if node.users else None
    pick = only_user(node)
    return pick if pick is not None and is_call(pick, operator.getitem) and pick.args[1] == 0 else None


def _convolution(write, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    rank = len(write.shape)
    if rank == 5 and transposed:
        return volumes.transposed(write, x, weight, bias, stride, padding, dilation, groups)
    if rank == 5:
        x, sides = _zero_padding(x, 3)
        return volumes.convolution(write, x, weight, bias, stride, padding, sides, dilation, groups)
    if rank not in (3, 4):
        return None
    x, sides = (x, [0, 0, 0, 0]) if transposed else _zero_padding(x)
    stride, padding, dilation, output_padding = map(pair, (stride, padding, dilation, output_padding))
    if rank == 3:  # a signal is an image of one row
        weight = write.reshape(weight, *shape_of(weight)[:2], 1, shape_of(weight)[2])
        stride, dilation = ([1, values[1]] for values in (stride, dilation))
        padding, output_padding = ([0, values[1]] for values in (padding, output_padding))
    flat, image = write.flat(x)
    around = [own + side for own, side in zip([padding[0]] * 2 + [padding[1]] * 2, sides, strict=True)]
    mixes = not transposed and groups == 1 and shape_of(weight)[2:] == (1, 1)
    if mixes and image[1:] == [1, 1] and not any(around):
        weight = write.emit(aten.permute.default, write.reshape(weight, *shape_of(weight)[:2]), [1, 0])
        return write.value(write.emit(operators.linear, flat, weight, bias), image)
    bias = bias and write.reshape(bias, 1, 1, 1, shape_of(bias)[0])
    if transposed:
        options = (stride, padding, dilation, groups, output_padding)
        flat = write.emit(operators.conv_transpose2d, flat, weight, bias, image, *options)
    else:
        flat = write.emit(operators.conv2d, flat, weight, bias, image, stride, around, dilation, groups)
    height, width = (1, *write.shape[2:])[-2:]
    return write.value(flat, [image[0], height, width])


def _zero_padding(x: Node, dims: int = 2) -> tuple[Node, list[int]]:
    """x without the zeros around its last `dims` dimensions, and how many: before and after rows, then columns."""
    if is_call(x, aten.constant_pad_nd.default) and len(x.users) == 1:
        source, sides, *value = x.args
        if len(sides) <= 2 * (len(shape_of(x)) - 2) and not any(value) and min(sides) >= 0:
            pairs = [*itertools.batched(sides, 2), *[(0, 0)] * (dims - len(sides) // 2)]
            return source, [*itertools.chain(*reversed(pairs))]
    return x, [0, 0] * dims


def _pool(write: ImageWriter, x: Node, kernel, stride, *options: Any, pool: Any) -> Node:
    """A pool of [batch, channels, height, width], or of [channels, height, width]."""
    flat, image = write.flat(x if len(write.shape) == 4 else write.reshape(x, 1, *shape_of(x)))
    options = (kernel, stride or kernel, *options)
    pooled = write.emit(pool, flat, image, *(pair(o) if isinstance(o, (list, tuple)) else o for o in options))
    return write.value(pooled, [image[0], *write.shape[-2:]])


def _adaptive_pool(write: ImageWriter, x: Node, size: list[int], pool: Any) -> Node | None:
    sizes = list(zip(shape_of(x)[-2:], size, strict=True))
    means = pool is operators.avg_pool2d
    if any(old % new for old, new in sizes):  # windows that differ
        if not means:
            return _maxima_of_windows(write, x, sizes)
        return _resampled(write, x, [F.adaptive_avg_pool1d(torch.eye(old), new) for old, new in sizes])
    kernel = [old // new for old, new in sizes]
    if kernel == [1, 1] and x.op == "call_function":
        return x
    return _pool(write, x, kernel, kernel, [0, 0], *((False, True, None) if means else ([1, 1], False)), pool=pool)


def _maxima_of_windows(write: ImageWriter, x: Node, sizes: list[tuple[int, int]]) -> Node:
    """The largest element of each of `new` windows of `old` pixels along a dimension, of which some are smaller.

    Those have their last pixel several times, so that all are of one size and touch.
    """
    flat, (batch, height, width) = write.flat(x if len(write.shape) == 4 else write.reshape(x, 1, *shape_of(x)))
    lines, kernel = [], []
    for old, new in sizes:
        first, end = torch.arange(new) * old // new, -(-torch.arange(1, new + 1) * old // new)
        kernel.append(int((end - first).max()))
        lines.append(torch.minimum(first[:, None] + torch.arange(kernel[-1]), end[:, None] - 1).flatten())
    (rows, columns), channels = lines, shape_of(flat)[-1]
    index = ((torch.arange(batch)[:, None] * height + rows)[..., None] * width + columns).reshape(1, -1)
    pixels = write.reshape(flat, batch * height * width, channels)
    spread = write.emit(aten.embedding.default, pixels, literal(x, index))
    image = [batch, len(rows), len(columns)]
    options = (image, kernel, kernel, [0, 0], [1, 1], False)
    pooled = write.emit(operators.max_pool2d, write.reshape(spread, 1, *shape_of(spread)), *options)
    return write.value(pooled, [batch, *(new for _, new in sizes)])


def _nearest(write: ImageWriter, x: Node, *options: Any) -> Node:
    batch, channels, *old = shape_of(x)
    places = write.like.target(_places(*map(torch.arange, old)).float()[None], *options)[0].long()
    times = [new // n for n, new in zip(old, write.shape[2:], strict=True)]
    repeated = _places(*(torch.arange(n).repeat_interleave(k) for n, k in zip(old, times, strict=True)))
    numbers = torch.arange(math.prod(old)).reshape(old)
    flat, image = write.flat(x if len(old) < 3 else write.reshape(x, batch, channels, 1, numbers.numel()))
    is_repeated = len(old) < 3 and torch.equal(places, repeated)
    if is_repeated and _is_small_in_tiles(image, write.shape) and _is_of_products(x):
        picks = (numbers[tuple(places)].reshape(-1, 1) == torch.arange(numbers.numel())).to(dtype_of(x))
        flat = write.emit(aten.matmul.default, literal(x, picks[None, None]), flat)
    elif is_repeated:
        flat = write.emit(operators.repeat_pixels, flat, image, *[1, *times][-2:])
    else:
        index = torch.arange(batch)[:, None] * numbers.numel() + numbers[tuple(places)].reshape(1, -1)
        pixels = write.reshape(flat, batch * numbers.numel(), channels)
        rows = write.emit(aten.embedding.default, pixels, literal(x, index.reshape(1, -1)))
        flat = write.reshape(rows, 1, *shape_of(rows))
    *lines, width = write.shape[2:]
    return write.value(flat, [batch, math.prod(lines), width])


def _is_of_products(x: Node) -> bool:
    """Whether an image comes from a convolution or a linear, be it activated or in another shape: it has no infinity
    of its own, which a product with zeros would make NaN of."""
    while is_call(x, *ACTIVATIONS, aten.reshape.default, aten.view.default, aten.permute.default):
        x = x.args[0]
    return is_call(x, aten.convolution.default, operators.conv2d, operators.linear)


def _is_small_in_tiles(image: list[int], shape: tuple[int, ...]) -> bool:
    """Whether pixels of one image, which fill no tiles, are repeated by a product in less time than by rows.

    Such shards leave L1 to be untilized, and are tilized again: a product of so many numbers takes a fraction of that.
    """
    pixels = math.prod(image)
    return image[0] == 1 and pixels % TILE > 0 and math.prod(shape) * pixels <= MOST_PRODUCTS


def _places(*along: torch.Tensor) -> torch.Tensor:
    """Where each pixel of an image stands, [dimensions, *sizes], of where those along each dimension stand."""
    return torch.stack(torch.meshgrid(*along, indexing="ij"))


def _weighted(write: ImageWriter, x: Node, _, align_corners: bool, *scales: Any, operation: Any) -> Node:
    """operation: the same on images. Its weights along a dimension are what it makes of the identity matrix."""
    sizes = list(zip(shape_of(x)[2:], write.shape[2:], strict=True))
    if len(scales) == 1 and not isinstance(scales[0], float):  # one argument for all dimensions
        scales = scales[0] or (None,) * len(sizes)

    def weights(size: tuple[int, int], scale: float | None) -> torch.Tensor:
        return operation(torch.eye(size[0])[None, None], size, align_corners, None, scale)[0, 0]

    return _resampled(write, x, list(map(weights, sizes, scales)))


def _resampled(write: ImageWriter, x: Node, weights: list[torch.Tensor]) -> Node:
    """x with its last dimensions resampled by weights [old, new]; those that stay as they are need none."""
    needed = [None if torch.equal(w, torch.eye(len(w))) else literal(x, w.to(dtype_of(x))) for w in weights]
    return write.emit(operators.resample, x, *[None] * (2 - len(needed)), *needed)


NEAREST = [getattr(aten, f"{kind}{n}d") for kind in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3)]
IMAGES = (aten.upsample_bilinear2d, aten.upsample_bicubic2d, aten._upsample_bilinear2d_aa, aten._upsample_bicubic2d_aa)
WEIGHTED = {aten.upsample_linear1d: aten.upsample_bilinear2d, **dict(zip(IMAGES, IMAGES, strict=True))}
RESIZED: dict[Any, Callable[..., Node | None]] = {
    **dict.fromkeys(NEAREST, _nearest),
    **{packet: partial(_weighted, operation=same.default) for packet, same in WEIGHTED.items()},
}
RULES: dict[Any, Callable[..., Node | None]] = {
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: partial(_pool, pool=operators.max_pool2d),
    aten.avg_pool2d.default: partial(_pool, pool=operators.avg_pool2d),
    aten._adaptive_avg_pool2d.default: partial(_adaptive_pool, pool=operators.avg_pool2d),
    aten.adaptive_max_pool2d.default: partial(_adaptive_pool, pool=operators.max_pool2d),
    aten.max_pool3d_with_indices.default: partial(volumes.pool, of=operators.max_pool2d),
    aten.avg_pool3d.default: partial(volumes.pool, of=operators.avg_pool2d),
    aten._adaptive_avg_pool3d.default: partial(volumes.adaptive_pool, of=operators.avg_pool2d),
    aten.adaptive_max_pool3d.default: partial(volumes.adaptive_pool, of=operators.max_pool2d),
    aten.upsample_trilinear3d.vec: volumes.weighted,
    aten.upsample_trilinear3d.default: volumes.weighted,
    aten.grid_sampler_2d.default: sampling.grid_sampler,
    **{overload: rule for packet, rule in RESIZED.items() for overload in (packet.vec, packet.default)},
    **pointwise.RULES,
}
