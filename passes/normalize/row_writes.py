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
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dead_code, dtype_of, insert, replace, shape_of
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

# Their first two tensors are a value and what is written into it.
KNOWN = frozenset({aten.slice_scatter.default, aten.diagonal_scatter.default})
INDEXED = frozenset({aten.index_put.default, aten.index_copy.default})


def write_rows(graph: Graph, context: Context) -> int:
    """Replace each such operation; returns how many."""
    constants = constant_nodes(graph)
    changed = 0
    for node in list(graph.nodes):
        if node.op != "call_function" or node in constants or not node.users or not movable(node):
            continue
        if node.target in KNOWN:
            changed += _write(node)
        elif node.target in INDEXED:
            changed += _put(node)
    dead_code(graph)
    return changed


def _write(node: Node) -> bool:
    """Values at known positions: each row of the result is one of x or one of the values behind it."""
    x, values, *rest = node.args
    if dtype_of(x) != dtype_of(values) or not movable(values) or not shape_of(x):
        return False
    count = math.prod(shape_of(x))
    numbers = torch.arange(count + math.prod(shape_of(values)))
    parts = numbers[:count].view(shape_of(x)), numbers[count:].view(shape_of(values))
    return _read_behind(node, values, node.target(*parts, *rest, **node.kwargs))


def _read_behind(node: Node, values: Node, numbers: torch.Tensor) -> bool:
    """`node` as what lies at `numbers` in its operand and then `values`."""
    graph, shape = node.graph, shape_of(node.args[0])
    width = shape[-1]
    rows = rows_of(numbers, width) if shape_of(values)[-1:] == (width,) else None
    with graph.inserting_before(node):
        table = _behind(node.args[0], values, None if rows is None else width, node)
        if rows is not None:
            new = insert(graph, operators.look_up, (table, literal(node, rows)), like=node)
        else:
            new = insert(graph, operators.pick, (table, literal(node, numbers)), like=node)
    replace(node, new)
    return True


def _behind(x: Node, values: Node, width: int | None, like: Node) -> Node:
    """The rows of x and behind them the rows of values, or their elements where `width` is None."""
    shape = [-1] if width is None else [-1, width]
    flat = [insert(x.graph, aten.reshape.default, (part, shape), like=like) for part in (x, values)]
    return insert(x.graph, aten.cat.default, (flat,), like=like)


def _put(node: Node) -> bool:
    """index_put and index_copy without accumulation."""
    is_copy = node.target is aten.index_copy.default
    x, values = node.args[0], node.args[3 if is_copy else 2]
    accumulate = (*node.args[3:], node.kwargs.get("accumulate", False))[0] if not is_copy else False
    indices, shape = indices_of(node), shape_of(x)
    if indices is None or accumulate or dtype_of(x) != dtype_of(values) or not movable(values):
        return False
    kept, graph = kept_dimension(indices, shape), node.graph
    with graph.inserting_before(node):
        indices = from_the_front(node, indices)
        if kept is None:
            places = insert(graph, operators.put_numbers, (indices, list(shape), list(shape_of(values))), like=node)
            new = insert(graph, operators.pick, (_behind(x, values, None, node), places), like=node)
        else:
            place, rank = place_of(kept, indices), rank_of(indices)
            full = [1] * (rank - len(shape_of(values))) + list(shape_of(values))
            spread = [*full[:place], shape[kept], *full[place + 1 :]]
            values = insert(graph, aten.expand.default, (values, spread), like=node)
            sizes = [1 if dim == kept else size for dim, size in enumerate(shape)]
            written = [1 if dim == place else size for dim, size in enumerate(spread)]
            rows = insert(graph, operators.put_numbers, (indices, sizes, written, kept), like=node)
            table = _behind(with_last(x, kept, node), with_last(values, place, node), shape[kept], node)
            new = from_the_end(insert(graph, operators.look_up, (table, rows), like=node), kept, node)
    replace(node, new)
    return True
