"""Fuse rotary position embedding that a model spells out into one operation.

Before   y = x * cos + cat((-x[..., half:], x[..., :half]), -1) * sin
After    y = rotary(x, cos, sin)

Models differ in which elements of a head turn together: one of the first half with one of the second (Llama), or
neighbours (Cohere), in all columns or in the first of them only (GPT-NeoX). What they turn into is read off by running
the moves and negations once on the numbers of a head's columns. Halves of whole tiles are TTNN's rotary embedding. All
else is x * cos + (x @ matrix) * sin, with a matrix as small as a tile where no pair leaves its tile: TTNN has that in
one call as well. Columns that do not turn have a cosine of 1 and a sine of 0, so that nothing is cut apart.
"""

import operator

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, needed_for, only_user, replace, shape_of, values_of
from tt_dynamo.passes.movement import moves_leading
from tt_dynamo.passes.rewrite import call, emit, variable
from tt_dynamo.passes.rows import literal

TILE = 32
SPLITS = (aten.split.Tensor, aten.split_with_sizes.default, operator.getitem)
MOVES = (aten.cat.default, aten.neg.default, aten.reshape.default, aten.slice.Tensor, *SPLITS)
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
            around = (start, width - start - len(columns))
            with graph.inserting_before(node):
                cos, sin = (_widened(table, around, fill, widened) for table, fill in ((cos, 1.0), (sin, 0.0)))
            columns = torch.nn.functional.pad(columns + start * columns.sign(), around)
        with graph.inserting_before(last):
            first, second = torch.arange(1, width + 1).chunk(2)
            are_halves = torch.equal(columns, torch.cat((-second, first)))
            if are_halves and (width == TILE or width % (2 * TILE) == 0):
                new = emit(last, operators.rotary, whole, cos, sin)
            else:
                matrix = literal(whole, _matrix(columns).to(whole.meta["val"].dtype)[None, None])
                new = emit(last, operators.rotary_by_matrix, whole, cos, sin, matrix)
        replace(last, new)
        fused += 1
    dead_code(graph)
    return fused


def _rotation(node: Node) -> tuple[Node, Node, Node, torch.Tensor] | None:
    """x, cos, sin of a node that is x * cos + turned * sin, and the columns of x that `turned` is made of.

    Columns count from 1, and are negative where their elements are negated.
    """
    for found in ROTATION.matches(node, {}) if node.users else ():
        x, cos, turned, sin = found.values()
        if len(shape_of(node)) != 4 or shape_of(x) != shape_of(node) or not is_call(turned, *MOVES):
            continue
        batch, _, seq, head_dim = shape_of(x)
        fits = shape_of(cos) == shape_of(sin) and shape_of(cos) in ((batch, 1, seq, head_dim), (1, 1, seq, head_dim))
        columns = _columns(turned, {x: torch.arange(1, head_dim + 1)}) if fits else None
        if columns is not None and columns.shape == (head_dim,):
            return x, cos, sin, columns
    return None


def _columns(node: Node, known: dict[Node, torch.Tensor]) -> torch.Tensor | None:
    """What `node` makes of columns: the numbers of its own; None where it does more than move and negate them.

    What is moved may have several dimensions in place of the last one, as neighbours have on their way into pairs.

    known: the numbers of the columns that it may be made of, by value
    """
    rows = shape_of(next(iter(known)))[:-1]
    ones = [1] * len(rows)
    values = {x: numbers.reshape(*ones, -1) for x, numbers in known.items()}
    for move in needed_for(node, lambda n: n in known or not is_call(n, *MOVES)):
        if not is_call(move, *MOVES) or not all(operand in values for operand in move.all_input_nodes):
            return None
        if any(value.shape[: len(rows)] != rows for value in values_of(move)):
            return None
        args = map_arg(move.args, values.__getitem__)
        sizes = [[*ones, *shape_of(move)[len(rows) :]]] if is_call(move, aten.reshape.default) else args[1:]
        values[move] = move.target(args[0], *sizes, **move.kwargs)
    return values[node].reshape(shape_of(node)[len(rows) :])


def _whole_heads(node: Node, x: Node) -> tuple[Node, Node, int]:
    """Where x is a part of each head's columns that the others join again: the last node, the head and x's start in it.

    node, x and 0 where it is none.
    """
    joined, whole = only_user(node), x.args[0] if is_call(x, aten.slice.Tensor) else x
    if whole is not x and is_call(joined, aten.cat.default) and shape_of(joined) == shape_of(whole):
        numbers = torch.arange(1, shape_of(whole)[-1] + 1)
        part = _columns(x, {whole: numbers})
        joins = None if part is None else _columns(joined, {whole: numbers, node: part})
        if part is not None and joins is not None and torch.equal(joins, numbers):
            return joined, whole, int(part[0]) - 1
    return node, x, 0


def _widened(table: Node, around: tuple[int, int], fill: float, known: dict) -> Node:
    """cos or sin of all columns of a head, for those that do not turn as well; made once for all layers."""
    key = (table, around, fill)
    if key not in known:
        reshaped = is_call(table, aten.reshape.default) and moves_leading(table)
        wide = emit(table, aten.constant_pad_nd.default, table.args[0] if reshaped else table, list(around), fill)
        shape = [*shape_of(table)[:-1], shape_of(wide)[-1]]
        known[key] = emit(table, aten.reshape.default, wide, shape) if reshaped else wide
    return known[key]


def _matrix(columns: torch.Tensor) -> torch.Tensor:
    """The matrix that brings each column to its place, none to where column 0 is; one tile of it for equal tiles."""
    to = (columns != 0).nonzero().flatten()
    source, sign = columns[to].abs() - 1, columns[to].sign().float()
    tile = torch.zeros(TILE, TILE)
    tile[source % TILE, to % TILE] = sign
    stays = torch.equal(source // TILE, to // TILE) and bool((tile.count_nonzero(0) <= 1).all())
    if stays and torch.equal(tile[source % TILE, to % TILE], sign):
        return tile
    matrix = torch.zeros(len(columns), len(columns))
    matrix[source, to] = sign
    return matrix
