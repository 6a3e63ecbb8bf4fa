"""Carry the streams of one token as rows of one tile, not as a tile each.

Before   y = addcmul(reshape(rows, [n, 1, 1, width]), a, b);   z = select(y, 0, 0)       b [n, 1, 1, 1], a [1, 1, width]
After    y = addcmul(rows, a, reshape(b, [1, n, 1]));          z = y[:, :1]              rows and y [1, n, width]

A product that mixes a token's streams reads them as rows and writes such; a reshape to what the model keeps moves all
of them, and another one moves them back for the next product. Sums and products take rows as well, with what is
broadcast along them. Of all that is cut from them only the first row lies at a tile.
"""

import math

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.movement import start_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import Rules, emit, is_constant

RULES = Rules()
ELEMENTWISE = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.addcmul.default)


def carry_stacked_rows(graph: Graph, context: Context) -> int:
    """Carry every such stack as rows; returns past how many operations."""
    carried = RULES.apply(graph)
    if carried:
        dead_code(graph)
        canonicalize(graph, context)  # reshapes that meet
    return carried


@RULES.on(*ELEMENTWISE)
def _carry(node: Node) -> Node | None:
    operands = [x for x in node.args if isinstance(x, Node)]
    if node.kwargs or {*map(dtype_of, operands)} != {dtype_of(node)}:
        return None
    is_stack = any(_rows_of(x) is not None and shape_of(x) == shape_of(node) for x in operands)
    if not is_stack or not all(_is_along(x, node) for x in operands):
        return None
    args = [_as_rows(node, x) if isinstance(x, Node) else x for x in node.args]
    return emit(node, aten.reshape.default, emit(node, node.target, *args), list(shape_of(node)))


@RULES.on(aten.select.int)
def _first(node: Node) -> Node | None:
    rows = _rows_of(node.args[0]) if node.args[1] == 0 and start_of(node) == 0 else None
    return rows and emit(node, aten.slice.Tensor, rows, len(shape_of(rows)) - 2, 0, 1)


def _rows_of(x: Node) -> Node | None:
    """The rows [..., n, width] that a reshape gives a tile each."""
    if not is_call(x, aten.reshape.default) or len(shape_of(x)) < 3 or is_constant(x):
        return None
    n, *ones, width = shape_of(x)
    return x.args[0] if 1 < n <= TILE and {*ones} == {1} and shape_of(x.args[0]) == _as_row_shape(shape_of(x)) else None


def _as_row_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[n, 1, ..., 1, width] as [1, ..., n, width], a dimension less."""
    return (*shape[1:-2], shape[0], shape[-1])


def _is_along(x: Node, stack: Node) -> bool:
    """Whether an operand is one of the stack's rows or has one for each, of numbers or of whole rows."""
    shape = (*[1] * (len(shape_of(stack)) - len(shape_of(x))), *shape_of(x))
    return math.prod(shape[1:-1]) == 1


def _as_rows(node: Node, x: Node) -> Node:
    rows, shape = _rows_of(x), shape_of(x)
    if rows is not None or len(shape) < len(shape_of(node)):
        return x if rows is None else rows
    return emit(node, aten.reshape.default, x, list(_as_row_shape(shape)))
