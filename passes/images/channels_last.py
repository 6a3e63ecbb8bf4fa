"""Convolutions and pools as TTNN has them: channels last, flattened, with the moves there and back as nodes.

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
from typing import Any

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dead_code, dtype_of, is_call, replace, shape_of, values_of
from tt_dynamo.passes.images.pointwise import rule_of
from tt_dynamo.passes.images.writer import FLOATS, Flat, ImageWriter
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def channels_last(graph: Graph, context: Context) -> int:
    """Rewrite every convolution and pool that TTNN has, and what their results flow through; returns how many."""
    constants = constant_nodes(graph)
    known: dict[Node, Flat] = {}
    rewritten = 0
    for node in list(graph.nodes):
        result = None if node.op != "call_function" or node in constants else result_of(node)
        if result is None or dtype_of(result) not in FLOATS or not result.meta["val"].numel():
            continue
        with graph.inserting_before(node):
            new = _rewritten(ImageWriter(graph, node, known), node)
        if new is not None:
            replace(result, new)
            rewritten += 1
    if known:
        dead_code(graph)
    if rewritten:
        canonicalize(graph, context)  # moves that meet those of the model
    return rewritten


def _rewritten(write: ImageWriter, node: Node) -> Node | None:
    rule, flowing = RULES.get(node.target), rule_of(node)
    if rule is not None:
        return rule(write, *arguments_of(node))
    return flowing(write, node) if flowing is not None else None


def result_of(node: Node) -> Node | None:
    """The value that a node gives: of several results the first; None where something reads the others, or none."""
    if not isinstance(node.meta["val"], (tuple, list)):
        return node if node.users and values_of(node) else None
    picks = list(node.users)
    only_first = len(picks) == 1 and is_call(picks[0], operator.getitem) and picks[0].args[1] == 0
    return picks[0] if only_first else None


def arguments_of(node: Node) -> list[Any]:
    """All of the schema's arguments, in order, with its defaults for those that are not given."""
    schema = node.target._schema.arguments[len(node.args) :]
    return [*node.args, *(node.kwargs.get(argument.name, argument.default_value) for argument in schema)]


def pair(values: int | list[int]) -> list[int]:
    values = [values] if isinstance(values, int) else list(values)
    return values * 2 if len(values) == 1 else values


def _convolution(write, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    result = write.like.meta["val"].shape
    if len(result) not in (3, 4):
        return None
    stride, padding, dilation, output_padding = map(list, (stride, padding, dilation, output_padding))
    x, sides = _zero_padding(x) if not transposed else (x, [0, 0, 0, 0])
    if len(result) == 3:  # a signal is an image of one row
        weight = write.reshape(weight, *shape_of(weight)[:2], 1, shape_of(weight)[2])
        stride, dilation = ([1, *pair(values)[1:]] for values in (stride, dilation))
        padding, output_padding = ([0, *pair(values)[1:]] for values in (padding, output_padding))
    stride, padding, dilation, output_padding = map(pair, (stride, padding, dilation, output_padding))
    flat, image = write.flat(x)
    around = [own + side for own, side in zip([padding[0]] * 2 + [padding[1]] * 2, sides, strict=True)]
    mixes = not transposed and groups == 1 and shape_of(weight)[2:] == (1, 1)
    if mixes and image[1:] == [1, 1] and not any(around):
        weight = write.emit(aten.permute.default, write.reshape(weight, *shape_of(weight)[:2]), [1, 0])
        return write.value(write.emit(operators.linear, flat, weight, bias), image, like=tuple(result))
    if bias is not None:
        bias = write.reshape(bias, 1, 1, 1, shape_of(bias)[0])
    if transposed:
        options = (stride, padding, dilation, groups, output_padding)
        flat = write.emit(operators.conv_transpose2d, flat, weight, bias, image, *options)
    else:
        flat = write.emit(operators.conv2d, flat, weight, bias, image, stride, around, dilation, groups)
    batch, _, *_, width = result
    height = result[2] if len(result) == 4 else 1
    return write.value(flat, [batch, height, width], like=tuple(result))


def _zero_padding(x: Node) -> tuple[Node, list[int]]:
    """x without the zeros around its rows and columns, and how many (top, bottom, left, right)."""
    if not is_call(x, aten.constant_pad_nd.default) or len(x.users) != 1:
        return x, [0, 0, 0, 0]
    source, sides, *value = x.args
    if len(sides) > 2 * (len(shape_of(x)) - 2) or any(value) or min(sides) < 0:
        return x, [0, 0, 0, 0]
    left, right, top, bottom = [*sides, 0, 0][:4]
    return source, [top, bottom, left, right]


def _pooled(write: ImageWriter, x: Node, target: Any, *options: Any) -> Node:
    """A pool of [batch, channels, height, width], or of [channels, height, width]."""
    value = write.like.meta["val"]
    result = tuple((value[0] if isinstance(value, (tuple, list)) else value).shape)
    flat, image = write.flat(x, batched=len(result) == 4)
    pooled = write.emit(target, flat, image, *options)
    return write.value(pooled, [image[0], *result[-2:]], like=result)


def _max_pool(write, x, kernel, stride, padding, dilation, ceil_mode):
    windows = (pair(kernel), pair(stride or kernel), pair(padding), pair(dilation), ceil_mode)
    return _pooled(write, x, operators.max_pool2d, *windows)


def _avg_pool(write, x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override):
    windows = (pair(kernel), pair(stride or kernel), pair(padding), ceil_mode, count_include_pad, divisor_override)
    return _pooled(write, x, operators.avg_pool2d, *windows)


def _windows(x: Node, size: list[int]) -> list[int] | None:
    """The one size of all windows of an adaptive pool; None where they differ."""
    given = shape_of(x)[-2:]
    if any(old % new for old, new in zip(given, size, strict=True)):
        return None
    return [old // new for old, new in zip(given, size, strict=True)]


def _adaptive_avg_pool(write, x, size):
    kernel = _windows(x, size)
    if kernel == [1, 1] and x.op == "call_function":
        return x
    return kernel and _pooled(write, x, operators.avg_pool2d, kernel, kernel, [0, 0], False, True, None)


def _adaptive_max_pool(write, x, size):
    kernel = _windows(x, size)
    return kernel and _pooled(write, x, operators.max_pool2d, kernel, kernel, [0, 0], [1, 1], False)


RULES: dict[Any, Callable[..., Node | None]] = {
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.avg_pool2d.default: _avg_pool,
    aten._adaptive_avg_pool2d.default: _adaptive_avg_pool,
    aten.adaptive_max_pool2d.default: _adaptive_max_pool,
}
