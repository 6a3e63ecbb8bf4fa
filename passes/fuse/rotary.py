"""Fuse rotary position embedding that a model spells out into one operation.

Before   y = x * cos + cat((-x[..., half:], x[..., :half]), -1) * sin
After    y = rotary(x, cos, sin)

Models differ in which elements of a head turn together: one of the first half with one of the second (Llama), or
neighbours (Cohere), in all columns or in the first of them only (GPT-NeoX). What they turn into is read off by running
the moves and negations once on the numbers of a head's columns. Halves of whole tiles are TTNN's rotary embedding. All
else is x * cos + (x @ matrix) * sin, where the matrix says which column goes where with which sign: as small as a tile
where no pair leaves its tile, since TTNN has that in one call as well. Columns that do not turn have a cosine of 1 and
a sine of 0, so that nothing is cut apart and joined again.
"""

from __future__ import annotations

import operator

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, insert, is_call, only_user, replace, shape_of
from tt_dynamo.passes.movement import moves_leading
from tt_dynamo.passes.rewrite import call, variable
from tt_dynamo.passes.rows import literal

TILE = 32
X, COS, TURNED, SIN = (variable(name) for name in ("x", "cos", "turned", "sin"))
ROTATION = call(aten.add.Tensor, call(aten.mul.Tensor, X, COS), call(aten.mul.Tensor, TURNED, SIN))


def fuse_rotary(graph: Graph, context: Context) -> int:
    """Fuse every rotary embedding; returns how many."""
    fused = 0
    widened: dict[tuple[Node, tuple[int, int], float], Node] = {}
    for node in list(graph.nodes):
        found = _rotation(node)
        if found is None:
            continue
        x, cos, sin, columns = found
        last, whole, start = _whole_heads(node, x)
        width = shape_of(whole)[-1]
        if whole is not x:
            after = width - start - len(columns)
            cos, sin = (_widened(graph, t, (start, after), fill, widened) for t, fill in ((cos, 1.0), (sin, 0.0)))
            columns = torch.nn.functional.pad(
                torch.where(columns < 0, columns - start, columns + start), (start, after)
            )
        with graph.inserting_before(last):
            if _are_halves(columns) and (width == TILE or width % (2 * TILE) == 0):
                new = insert(graph, operators.rotary, (whole, cos, sin), like=last)
            else:
                matrix = literal(whole, _matrix(columns).to(dtype_of(whole))[None, None])
                new = insert(graph, operators.rotary_by_matrix, (whole, cos, sin, matrix), like=last)
        replace(last, new)
        fused += 1
    if fused:
        dead_code(graph)
    return fused


def _rotation(node: Node) -> tuple[Node, Node, Node, torch.Tensor] | None:
    """x, cos, sin of a node that is x * cos + turned * sin, and the columns of x that `turned` is made of.

    Columns count from 1, and are negative where their elements are negated.
    """
    for found in ROTATION.matches(node, {}) if node.users else ():
        x, cos, turned, sin = found.values()
        if len(shape_of(node)) != 4 or shape_of(x) != shape_of(node) or not _fits(cos, x):
            continue
        if shape_of(cos) != shape_of(sin) or not _moves_columns(turned):
            continue
        columns = _columns(turned, x)
        if columns is not None and columns.shape == shape_of(x)[-1:]:
            return x, cos, sin, columns
    return None


def _fits(table: Node, x: Node) -> bool:
    """Whether cos or sin is [batch or 1, 1, seq, head_dim] for x [batch, heads, seq, head_dim]."""
    batch, _, *rest = shape_of(x)
    return len(shape_of(table)) == 4 and shape_of(table)[0] in (1, batch) and list(shape_of(table)[1:]) == [1, *rest]


def _moves_columns(node: Node) -> bool:
    return is_call(node, aten.cat.default, aten.reshape.default)


def _columns(node: Node, x: Node, steps: int = 12) -> torch.Tensor | None:
    """What `node` makes of the columns of x when these are 1 … head_dim; None where it does more than move and negate.

    What is moved may have several dimensions in place of the last one, as neighbours have on their way into pairs.
    steps: how many operations may lie between.
    """
    if node is x:
        return torch.arange(1, shape_of(x)[-1] + 1)
    if not isinstance(node, Node) or node.op != "call_function" or not steps:
        return None
    leading = len(shape_of(x)) - 1

    def trailing(dim: int) -> int:
        return dim % len(shape_of(operand)) - leading

    if is_call(node, aten.cat.default):
        operand = node.args[0][0]
        dim = trailing(node.args[1] if len(node.args) > 1 else 0)
        parts = [_columns(part, x, steps - 1) for part in node.args[0]] if dim >= 0 else [None]
        return None if any(part is None for part in parts) else torch.cat(parts, dim)  # type: ignore[arg-type]
    if is_call(node, operator.getitem) and is_call(node.args[0], aten.split.Tensor, aten.split_with_sizes.default):
        operand, sizes, *rest = node.args[0].args
        dim, columns = trailing(rest[0] if rest else 0), _columns(operand, x, steps - 1)
        return None if columns is None or dim < 0 else columns.split(sizes, dim)[node.args[1]]
    if not is_call(node, aten.neg.default, aten.slice.Tensor, aten.reshape.default):
        return None
    operand, *rest = node.args
    columns = _columns(operand, x, steps - 1)
    if columns is None:
        return None
    if is_call(node, aten.neg.default):
        return -columns
    if is_call(node, aten.slice.Tensor):
        dim = trailing(rest[0] if rest else 0)
        return None if dim < 0 else aten.slice.Tensor(columns, dim, *rest[1:])
    if shape_of(node)[:leading] != shape_of(x)[:leading]:
        return None
    return columns.reshape(shape_of(node)[leading:])


def _whole_heads(node: Node, x: Node) -> tuple[Node, Node, int]:
    """Where x is a part of each head's columns that the others join again: the last node, the head and x's start in it.

    node, x and 0 where it is none.
    """
    joined = only_user(node)
    if joined is None or not is_call(joined, aten.cat.default) or not is_call(x, aten.slice.Tensor):
        return node, x, 0
    whole = x.args[0]
    if shape_of(joined) != shape_of(whole):
        return node, x, 0
    parts = [_columns(x if part is node else part, whole) for part in joined.args[0]]
    leading = len(shape_of(whole)) - 1
    if (
        any(p is None or p.dim() != 1 for p in parts)
        or (joined.args[1] % (leading + 1) if joined.args[1:] else 0) != leading
    ):
        return node, x, 0
    if not torch.equal(torch.cat(parts), torch.arange(1, shape_of(whole)[-1] + 1)):  # type: ignore[arg-type]
        return node, x, 0
    return joined, whole, int(_columns(x, whole)[0]) - 1  # type: ignore[index]


def _widened(graph: Graph, table: Node, around: tuple[int, int], fill: float, known: dict) -> Node:
    """cos or sin of all columns of a head, for those that do not turn as well; made once for all layers."""
    key = (table, around, fill)
    if key not in known:
        reshaped = is_call(table, aten.reshape.default) and moves_leading(table)
        source = table.args[0] if reshaped else table
        after = table.next
        while after.op == "placeholder":
            after = after.next
        with graph.inserting_before(after):
            wide = insert(graph, aten.constant_pad_nd.default, (source, list(around), fill), like=table)
            if reshaped:
                shape = [*shape_of(table)[:-1], shape_of(wide)[-1]]
                wide = insert(graph, aten.reshape.default, (wide, shape), like=table)
            known[key] = wide
    return known[key]


def _are_halves(columns: torch.Tensor) -> bool:
    first, second = torch.arange(1, len(columns) + 1).chunk(2)
    return torch.equal(columns, torch.cat((-second, first)))


def _matrix(columns: torch.Tensor) -> torch.Tensor:
    """The matrix that brings each column to its place; one tile of it where it is the same for all tiles.

    Column 0 is none: nothing is brought to a place that does not turn.
    """
    to = (columns != 0).nonzero().flatten()
    source, sign = columns[to].abs() - 1, columns[to].sign()
    if torch.equal(source // TILE, to // TILE):
        turns = {(int(s) % TILE, int(t) % TILE, int(g)) for s, t, g in zip(source, to, sign, strict=True)}
        if len({t for _, t, _ in turns}) == len(turns):
            matrix = torch.zeros(TILE, TILE)
            for s, t, g in sorted(turns):
                matrix[s, t] = g
            return matrix
    matrix = torch.zeros(len(columns), len(columns))
    matrix[source, to] = sign.float()
    return matrix
