"""Conditions of each image, as adaptive norms read them: one row for all tokens of an image.

Before   scale = linear(c, w).chunk(6, 1)[1][:, None]        c [batch, width], as DiT, SD3 and Flux have it
After    scale = linear(c[:, None], w)[:, :, columns of the scale]

Rows of a tile belong to one image, so that every row [batch, width] that becomes [batch, 1, width] moves: it becomes
that once, where it is first computed, and linears of it are divided by their columns (`split_linears`) behind it.
"""

import operator
from typing import Any

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, is_call, shape_of
from tt_dynamo.passes.rewrite import Rules, emit

ROWS = Rules()
UNARY = tuple(getattr(aten, name).default for name in ("silu", "gelu", "relu", "sigmoid", "tanh"))
CUTS = (aten.split.Tensor, aten.split_with_sizes.default)


def rows_of_images(graph: Graph, context: Context) -> int:
    """Compute what is one row of each image as [batch, 1, width] from the start; returns how many operations moved."""
    return ROWS.apply(graph)


def _is_row(node: Node) -> bool:
    """Whether a node is a value [batch, width] as [batch, 1, width], for more than one image."""
    if not is_call(node, aten.reshape.default):
        return False
    before, after = shape_of(node.args[0]), shape_of(node)
    return len(before) == 2 and before[0] > 1 and after == (before[0], 1, before[1])


def _all_rows(x: Node) -> bool:
    return all(map(_is_row, x.users))


@ROWS.on(aten.reshape.default)
def _row_before(node: Node) -> Node | None:
    """[:, None] of a linear, of an activation or of some columns: before it, where nothing reads it otherwise."""
    x = node.args[0]
    if not _is_row(node) or not _all_rows(x):
        return None
    if is_call(x, operators.linear, *UNARY):
        return _shared(node, x.target, _row(node, x.args[0]), *x.args[1:], **x.kwargs)
    if is_call(x, operators.add_activation) and shape_of(x.args[0]) == shape_of(x.args[1]) == shape_of(x):
        return _shared(node, x.target, *(_row(node, part) for part in x.args[:2]), *x.args[2:])
    if is_call(x, aten.slice.Tensor) and x.args[1] in (1, -1):
        return _shared(node, aten.slice.Tensor, _row(node, x.args[0]), 2, *x.args[2:])
    if is_call(x, operator.getitem) and is_call(x.args[0], *CUTS):
        cut, index = x.args
        if (*cut.args, 0)[2] in (1, -1) and all(map(_all_rows, cut.users)):
            start = sum(part.shape[1] for part in cut.meta["val"][:index])
            return _shared(node, aten.slice.Tensor, _row(node, cut.args[0]), 2, start, start + shape_of(x)[1])
    return None


def _row(node: Node, x: Node) -> Node:
    return _shared(node, aten.reshape.default, x, [shape_of(x)[0], 1, shape_of(x)[1]])


def _shared(node: Node, target: Any, x: Node, *args: Any, **kwargs: Any) -> Node:
    """A call that the graph may hold before `node`: all blocks read the same rows."""
    for user in x.users:
        if is_call(user, target) and user < node and ([*user.args], user.kwargs) == ([x, *args], kwargs):
            return user
    return emit(node, target, x, *args, **kwargs)
