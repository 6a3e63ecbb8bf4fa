"""Rows cut from a join of rows are taken from the part of it, and one row that takes another's place is chosen.

Before   y = layer_norm(cat([token, x], 1));   q = linear(y[:, 0], w);   z = cat([q, y[:, 1:]], 1) * s
After    q = linear(layer_norm(token)[:, 0], w)

Before   cat([token, x[:, 1:]], 1)
After    where([[True], [False], …], token, x)

A class token is one row beside an image's. Rows of a tile are joined and cut as rows, in another layout. What works row
by row works on a part of them as on all; a product does so only where its other rows are read nowhere.
"""

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.passes.movement import dim_of, joined_along, part_of_join, start_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import FLOATS, argument, emit, is_constant
from tt_dynamo.passes.rows import ROWS, literal

CUTS = (aten.slice.Tensor, aten.select.int)
# Sums of joins become joins of sums.
SUMS = (aten.add.Tensor, aten.mul.Tensor)


def cut_rows(graph: Graph, context: Context) -> int:
    """Take the rows of every cut from where they lie; returns how many cuts and joins less."""
    count = 0
    for node in list(graph.nodes):
        if is_call(node, *CUTS) and node.users and _is_of_rows(node) and not is_constant(node):
            count += _cut(node)
    dead_code(graph)
    for node in list(graph.nodes):
        if is_call(node, *SUMS) and node.users:
            count += _join_sums(node)
        elif is_call(node, aten.cat.default):
            count += _put_row(node)
    dead_code(graph)
    if count:
        canonicalize(graph, context)  # what was taken twice
    return count


def _is_of_rows(node: Node) -> bool:
    """Whether a slice or select, or a join, is along the dimension before the last."""
    if is_call(node, aten.cat.default):
        return joined_along(node) == -2
    is_strided = is_call(node, aten.slice.Tensor) and argument(node, 4, 1) != 1
    return dim_of(node) == len(shape_of(node.args[0])) - 2 and not is_strided


def _cut(node: Node) -> bool:
    x, start = node.args[0], start_of(node)
    stop = start + (shape_of(node)[-2] if is_call(node, aten.slice.Tensor) else 1)
    with node.graph.inserting_before(node):
        part = _part(x, start, stop)
        if part is None:
            return False
        if is_call(node, aten.select.int):
            part = emit(node, aten.select.int, part, dim_of(node), 0)
        replace(node, part)
    return True


def _part(x: Node, start: int, stop: int) -> Node | None:
    """Rows of x, computed from a part of a join; None where no join has them as a part."""
    if is_call(x, aten.cat.default):
        part = part_of_join(x, start, stop) if _is_of_rows(x) else None
        return part if part is not None and dtype_of(part) == dtype_of(x) else None
    is_shared = is_call(x, operators.linear) and len(x.users) > 1
    if not is_call(x, *ROWS) or is_shared or (is_call(x, aten.layer_norm.default) and len(x.args[1]) > 1):
        return None
    args = list(x.args)
    for place, operand in enumerate(x.args[: ROWS[x.target]]):
        if isinstance(operand, Node) and not _is_of_every_row(operand, x):
            args[place] = _constant_part(operand, start, stop) if is_constant(operand) else _part(operand, start, stop)
            if args[place] is None:
                return None
    return None if args == [*x.args] else emit(x, x.target, *args, **x.kwargs)


def _is_of_every_row(operand: Node, x: Node) -> bool:
    """Whether an operand is broadcast along the rows of x."""
    return shape_of(operand)[-2:-1] in ((), (1,)) and shape_of(x)[-2] > 1


def _constant_part(operand: Node, start: int, stop: int) -> Node:
    return emit(operand, aten.slice.Tensor, operand, len(shape_of(operand)) - 2, start, stop)


def _join_sums(node: Node) -> bool:
    """cat([a, b]) + cat([c, d]) → cat([a + c, b + d]), where nothing else reads these."""
    if node.kwargs or not all(is_call(x, aten.cat.default) and _is_of_rows(x) for x in node.args):
        return False
    pairs = [x.args[0] for x in node.args]
    heights = {tuple(shape_of(part)[-2] for part in parts) for parts in pairs}
    if len(heights) > 1 or any(only_user(x) is not node for x in node.args):
        return False
    with node.graph.inserting_before(node):
        sums = [emit(node, node.target, *parts) for parts in zip(*pairs, strict=True)]
        replace(node, emit(node, aten.cat.default, sums, len(shape_of(node)) - 2))
    return True


def _put_row(node: Node) -> bool:
    """One row among all others of a value is chosen row by row."""
    parts, shape = node.args[0], shape_of(node)
    if len(parts) not in (2, 3) or not _is_of_rows(node) or is_constant(node):
        return False
    new = [part for part in parts if not (is_call(part, aten.slice.Tensor) and _is_of_rows(part))]
    sources = {part.args[0] for part in parts if part not in new}
    if len(new) != 1 or shape_of(new[0])[-2] != 1 or len(sources) != 1:
        return False
    if dtype_of(node) not in FLOATS or any(dtype_of(part) != dtype_of(node) for part in parts):
        return False
    source, at, row = sources.pop(), 0, 0
    for part in parts:
        if part is new[0]:
            row = at
        elif start_of(part) != at:
            return False
        at += shape_of(part)[-2]
    if shape_of(source) != shape:
        return False
    with node.graph.inserting_before(node):
        here = literal(node, torch.arange(shape[-2])[:, None] == row)
        replace(node, emit(node, aten.where.self, here, new[0], source))
    return True
