"""Writes by index read rows from the value and, behind it, what is written.

Before   y = index_put(x, [ids], values)                y = slice_scatter(x, values, 2, 0, 8, 2)
After    y = look_up(cat(x, values), put_numbers(ids))  y = look_up(cat(x, values), rows)

Where each row of the result comes from is found by the same write into numbers: at compile time where the positions are
known, else on the host, where eager torch checks the indices and decides between writes to one place.
"""

from __future__ import annotations

import math

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dtype_of, shape_of
from tt_dynamo.passes.rewrite import Rules, argument, emit
from tt_dynamo.passes.rows import (
    from_the_end,
    from_the_front,
    indices_of,
    kept_dimension,
    literal,
    movable,
    place_of,
    rank_of,
    rows_of,
    with_last,
)

RULES = Rules()


def index_put_to_embedding(graph: Graph, context: Context) -> int:
    """Replace each such operation; returns how many."""
    return RULES.apply(graph, leave=constant_nodes)


@RULES.on(aten.slice_scatter.default, aten.diagonal_scatter.default)
def _write(node: Node) -> Node | None:
    """Values at known positions: each row of the result is one of x or one of the values behind it."""
    x, values, *rest = node.args
    if dtype_of(x) != dtype_of(values) or not movable(values) or not movable(node) or not shape_of(x):
        return None
    count = math.prod(shape_of(x))
    numbers = torch.arange(count + math.prod(shape_of(values)))
    parts = numbers[:count].view(shape_of(x)), numbers[count:].view(shape_of(values))
    numbers, width = node.target(*parts, *rest, **node.kwargs), shape_of(x)[-1]
    rows = rows_of(numbers, width) if shape_of(values)[-1:] == (width,) else None
    if rows is None:
        return emit(node, operators.pick, _behind(x, values, None, node), literal(node, numbers))
    return emit(node, operators.look_up, _behind(x, values, width, node), literal(node, rows))


def _behind(x: Node, values: Node, width: int | None, like: Node) -> Node:
    """The rows of x and behind them the rows of values, or their elements where `width` is None."""
    shape = [-1] if width is None else [-1, width]
    return emit(like, aten.cat.default, [emit(like, aten.reshape.default, part, shape) for part in (x, values)])


@RULES.on(aten.index_put.default, aten.index_copy.default)
def _put(node: Node) -> Node | None:
    """index_put and index_copy without accumulation."""
    x, values = node.args[0], argument(node, 3 if node.target is aten.index_copy.default else 2)
    accumulate = node.target is aten.index_put.default and argument(node, 3, False)
    indices, shape = indices_of(node), shape_of(x)
    if indices is None or accumulate or dtype_of(x) != dtype_of(values) or not movable(values) or not movable(node):
        return None
    kept, indices = kept_dimension(indices, shape), from_the_front(node, indices)
    if kept is None:
        places = emit(node, operators.put_numbers, indices, list(shape), list(shape_of(values)))
        return emit(node, operators.pick, _behind(x, values, None, node), places)
    place, rank = place_of(kept, indices), rank_of(indices)
    full = [1] * (rank - len(shape_of(values))) + list(shape_of(values))
    spread = [*full[:place], shape[kept], *full[place + 1 :]]
    values = emit(node, aten.expand.default, values, spread)
    sizes = [1 if dim == kept else size for dim, size in enumerate(shape)]
    written = [1 if dim == place else size for dim, size in enumerate(spread)]
    rows = emit(node, operators.put_numbers, indices, sizes, written, kept)
    table = _behind(with_last(x, kept, node), with_last(values, place, node), shape[kept], node)
    return from_the_end(emit(node, operators.look_up, table, rows), kept, node)
