"""Convolutions, pools and resized images as TTNN has them: channels last, flattened, with the moves there and back.

Before   y = convolution(x, w, b, …)                                     x [batch, channels, height, width]
After    y = permute(reshape(conv2d(reshape(permute(x, NHWC), [1, 1, n h w, c]), w, b, …), [n, h', w', o]), NCHW)

What follows takes the flattened image where it can, be it another of these or an operation on each element
(`passes/images/pointwise.py`), so nothing moves in between. Signals of one dimension are images of height 1, and what
has no batch is a batch of one. Padding by zeros in front of a convolution becomes its own. A convolution of one pixel
is a linear. What TTNN has nothing for (three dimensions, indices of maxima that something reads) stays as it is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dead_code, dtype_of, is_call, replace, shape_of, values_of
from tt_dynamo.passes.images import pointwise, resize
from tt_dynamo.passes.images.writer import FLOATS, Flat, ImageWriter, arguments_of, pair
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def channels_last(graph: Graph, context: Context) -> int:
    """Rewrite every convolution, pool and resizing that TTNN has, and what they flow through; returns how many."""
    constants = constant_nodes(graph)
    known: dict[Node, Flat] = {}
    rewritten = 0
    for node in list(graph.nodes):
        result = None if node.op != "call_function" or node in constants else result_of(node)
        if result is None or dtype_of(result) not in FLOATS or not result.meta["val"].numel():
            continue
        rule = RULES.get(node.target, pointwise.elementwise if pointwise.is_elementwise(node) else None)
        with graph.inserting_before(node):
            new = rule and rule(ImageWriter(node, known), *arguments_of(node))
        if new is not None:
            replace(result, new)
            rewritten += 1
    dead_code(graph)
    if rewritten:
        canonicalize(graph, context)  # moves that meet those of the model
    return rewritten


def result_of(node: Node) -> Node | None:
    """The value that a node gives: of several results the first; None where something reads the others, or none."""
    if not isinstance(node.meta["val"], (tuple, list)):
        return node if node.users and values_of(node) else None
    picks = list(node.users)
    only_first = len(picks) == 1 and is_call(picks[0], operator.getitem) and picks[0].args[1] == 0
    return picks[0] if only_first else None


def _convolution(write, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    rank = len(write.shape)
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
    if bias is not None:
        bias = write.reshape(bias, 1, 1, 1, shape_of(bias)[0])
    if transposed:
        options = (stride, padding, dilation, groups, output_padding)
        flat = write.emit(operators.conv_transpose2d, flat, weight, bias, image, *options)
    else:
        flat = write.emit(operators.conv2d, flat, weight, bias, image, stride, around, dilation, groups)
    height, width = (1, *write.shape[2:])[-2:]
    return write.value(flat, [image[0], height, width])


def _zero_padding(x: Node) -> tuple[Node, list[int]]:
    """x without the zeros around its rows and columns, and how many (top, bottom, left, right)."""
    if is_call(x, aten.constant_pad_nd.default) and len(x.users) == 1:
        source, sides, *value = x.args
        if len(sides) <= 2 * (len(shape_of(x)) - 2) and not any(value) and min(sides) >= 0:
            left, right, top, bottom = [*sides, 0, 0][:4]
            return source, [top, bottom, left, right]
    return x, [0, 0, 0, 0]


def _pool(write: ImageWriter, x: Node, kernel, stride, *options: Any, pool: Any) -> Node:
    """A pool of [batch, channels, height, width], or of [channels, height, width]."""
    flat, image = write.flat(x, batched=len(write.shape) == 4)
    options = (kernel, stride or kernel, *options)
    pooled = write.emit(pool, flat, image, *(pair(o) if isinstance(o, (list, tuple)) else o for o in options))
    return write.value(pooled, [image[0], *write.shape[-2:]])


def _adaptive_pool(write: ImageWriter, x: Node, size: list[int], pool: Any) -> Node | None:
    sizes = list(zip(shape_of(x)[-2:], size, strict=True))
    means = pool is operators.avg_pool2d
    if any(old % new for old, new in sizes):  # windows that differ
        weights = (F.adaptive_avg_pool1d(torch.eye(old), new) for old, new in sizes)
        return resize.resample(write, x, list(weights)) if means else None
    kernel = [old // new for old, new in sizes]
    if kernel == [1, 1] and x.op == "call_function":
        return x
    return _pool(write, x, kernel, kernel, [0, 0], *((False, True, None) if means else ([1, 1], False)), pool=pool)


RULES: dict[Any, Callable[..., Node | None]] = {
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: partial(_pool, pool=operators.max_pool2d),
    aten.avg_pool2d.default: partial(_pool, pool=operators.avg_pool2d),
    aten._adaptive_avg_pool2d.default: partial(_adaptive_pool, pool=operators.avg_pool2d),
    aten.adaptive_max_pool2d.default: partial(_adaptive_pool, pool=operators.max_pool2d),
    **resize.RULES,
    **pointwise.RULES,
}
