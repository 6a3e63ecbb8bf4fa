"""Fuse rotary position embedding that a model spells out into one operation.

Before   y = x * cos + cat((-x[..., half:], x[..., :half]), -1) * sin
         y = cat((a * cos - b * sin, b * cos + a * sin), -1)   where a, b = x.chunk(2, -1)
After    y = rotary(x, cos, sin)

Models differ in which elements of a head turn together: one of the first half with one of the second (Llama), or
neighbours (Cohere), in all columns or in the first of them only (GPT-NeoX). What they turn into is read off by running
the moves and negations once on the numbers of a head's columns. Halves of whole tiles are TTNN's rotary embedding. All
else is x * cos + (x @ matrix) * sin, with a matrix as small as a tile where no pair leaves its tile: TTNN has that in
one call as well. Columns that do not turn have a cosine of 1 and a sine of 0, so that nothing is cut apart, and so have
tokens that do not turn, as the class tokens of EVA-02 and DINOv3.

Tables may have any rank that broadcasts to x. The heads may stand behind the sequence (GPT-J): rotary takes them before
it, where attention wants them. Heads with tables of their own are one long sequence.
"""

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, needed_for, only_user, replace, shape_of, values_of
from tt_dynamo.passes.movement import cut_of, moves_leading
from tt_dynamo.passes.rewrite import argument, call, emit, variable
from tt_dynamo.passes.rows import literal

TILE = 32
SPLITS = (aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int, operator.getitem)
MOVES = (aten.cat.default, aten.neg.default, aten.reshape.default, aten.slice.Tensor, aten.select.int, *SPLITS)
JOINS = (aten.cat.default, aten.reshape.default)
X, COS, TURNED, SIN = (variable(name) for name in ("x", "cos", "turned", "sin"))
ACROSS = (call(aten.mul.Tensor, X, COS), call(aten.mul.Tensor, TURNED, SIN))
SUM, DIFFERENCE = call(aten.add.Tensor, *ACROSS), call(aten.sub.Tensor, *ACROSS)
PERMUTE, SWAPPED = aten.permute.default, [0, 2, 1, 3]


class Rotation(NamedTuple):
    """last = x * cos + x[..., columns] * sin, of one shape; the tables are as wide and broadcast to it.

    columns: count from 1, and are negative where their elements are negated, 0 where nothing turns
    """

    last: Node
    x: Node
    cos: Node
    sin: Node
    columns: torch.Tensor


class Layout(NamedTuple):
    """The shape to which rotary's x is brought, and its tables; `is_swapped`: its heads stand behind the sequence."""

    shape: tuple[int, ...]
    is_swapped: bool
    table: tuple[int, ...]


class Tables:
    """Cosines and sines as rotary takes them, each made once for all layers, right behind what it is made of."""

    def __init__(self) -> None:
        self.known: dict[Any, Node] = {}

    def widened(self, table: Node, dim: int, around: tuple[int, int], fill: float) -> Node:
        """The table of what does not turn as well, before and behind along a dimension counted from the end."""
        if around == (0, 0):
            return table
        is_view = dim == -1 and _is_view(table)
        narrow, pads = table.args[0] if is_view else table, [*[0, 0] * (-dim - 1), *around]
        wide = self._emit(aten.constant_pad_nd.default, narrow, pads, fill)
        return self.reshaped(wide, (*shape_of(table)[:-1], shape_of(wide)[-1])) if is_view else wide

    def joined(self, tables: Sequence[Node], order: torch.Tensor | None = None) -> Node:
        """The columns of several tables one after another, or in another order."""
        if all(map(_is_view, tables)) and len({shape_of(table.args[0])[:-1] for table in tables}) == 1:
            wide = self.joined([table.args[0] for table in tables], order)
            return self.reshaped(wide, (*shape_of(tables[0])[:-1], shape_of(wide)[-1]))
        whole = tables[0] if len(tables) == 1 else self._emit(aten.cat.default, list(tables), -1)
        if order is None or torch.equal(order, torch.arange(len(order))):
            return whole
        return self._emit(aten.index_select.default, whole, -1, self.literal(whole, order))

    def literal(self, like: Node, numbers: torch.Tensor) -> Node:
        key = (numbers.dtype, numbers.shape, *numbers.flatten().tolist())
        if key not in self.known:
            with like.graph.inserting_before(_behind(next(iter(like.graph.nodes)))):
                self.known[key] = literal(like, numbers)
        return self.known[key]

    def reshaped(self, table: Node, shape: tuple[int, ...]) -> Node:
        return table if shape_of(table) == shape else self._emit(aten.reshape.default, table, list(shape))

    def _emit(self, target: Any, *args: Any) -> Node:
        operands: list[Node] = []
        map_arg(args, operands.append)
        key = (target, str(args), *operands)
        if key not in self.known:
            with operands[0].graph.inserting_before(_behind(max(operands))):
                self.known[key] = emit(max(operands), target, *args)
        return self.known[key]


def _is_view(table: Node) -> bool:
    return is_call(table, aten.reshape.default) and moves_leading(table)


def _behind(node: Node) -> Node:
    """Where to insert what is made of a node, no placeholder."""
    node = node.next
    while node.op == "placeholder":
        node = node.next
    return node


def fuse_rotary(graph: Graph, context: Context) -> int:
    """Fuse every rotary embedding; returns how many."""
    fused, tables = 0, Tables()
    for node in list(graph.nodes):
        rotation = _rotation(node) or _rotation_of_parts(node, tables) if node.users else None
        while rotation is not None and (whole := _of_whole(rotation, tables)):
            rotation = whole
        layout = rotation and _layout(shape_of(rotation.x), rotation.cos)
        if rotation is not None and layout is not None:
            _fuse(rotation, layout, tables)
            fused += 1
    dead_code(graph)
    return fused


def _fuse(rotation: Rotation, layout: Layout, tables: Tables) -> None:
    last, x, cos, sin, columns = rotation
    cos, sin = (tables.reshaped(table, layout.table) for table in (cos, sin))
    shape, width = shape_of(last), len(columns)
    with last.graph.inserting_before(last):
        x = x if layout.shape == shape else emit(last, aten.reshape.default, x, list(layout.shape))
        x = _swapped(x, last) if layout.is_swapped else x
        first, second = torch.arange(1, width + 1).chunk(2)
        are_halves = torch.equal(columns, torch.cat((-second, first)))
        if are_halves and (width == TILE or width % (2 * TILE) == 0):
            turned = emit(last, operators.rotary, x, cos, sin)
        else:
            matrix = tables.literal(x, _matrix(columns).to(x.meta["val"].dtype)[None, None])
            turned = emit(last, operators.rotary_by_matrix, x, cos, sin, matrix)
        back = _swapped(turned, last) if layout.is_swapped else turned
        new = back if layout.shape == shape else emit(last, aten.reshape.default, back, list(shape))
    for user in list(last.users) if new is back is not turned else ():
        if is_call(user, back.target) and list(user.args[1]) == (
            SWAPPED if back.target is PERMUTE else [*shape_of(turned)]
        ):
            replace(user, turned)
    if last.users:
        replace(last, new)


def _swapped(x: Node, like: Node) -> Node:
    """x with heads and sequence exchanged, a reshape where one of them is 1."""
    batch, *between, width = shape_of(x)
    if 1 in between:
        return emit(like, aten.reshape.default, x, [batch, *between[::-1], width])
    return emit(like, PERMUTE, x, SWAPPED)


def _rotation(node: Node) -> Rotation | None:
    """The rotation that a node x * cos + turned * sin is."""
    for found in SUM.matches(node, {}):
        x, cos, turned, sin = found.values()
        shape = shape_of(node)
        moves = is_call(turned, *MOVES) and turned is not x
        if len(shape) < 3 or shape_of(x) != shape or not moves or not _are_tables(shape, cos, sin):
            continue
        columns = _columns(turned, shape[:-1], {x: torch.arange(1, shape[-1] + 1)})
        if columns is not None and columns.shape == shape[-1:]:
            return Rotation(node, x, cos, sin, columns)
    return None


def _are_tables(shape: tuple[int, ...], cos: Node, sin: Node) -> bool:
    return shape_of(cos) == shape_of(sin) and shape_of(cos)[-1:] == shape[-1:] and len(shape_of(cos)) <= len(shape)


def _rotation_of_parts(node: Node, tables: Tables) -> Rotation | None:
    """The rotation that moves join of a * cos - b * sin and b * cos + a * sin, where a and b are columns of one x."""
    if not is_call(node, *JOINS) or len(shape_of(node)) < 3:
        return None
    joins = [n for n in needed_for(node, lambda n: not is_call(n, *JOINS)) if is_call(n, *JOINS)]
    if not any(is_call(join, aten.cat.default) for join in joins):
        return None
    sums = list(dict.fromkeys(x for join in joins for x in join.all_input_nodes if x not in joins))
    rows = shape_of(node)[:-1]
    are_sums = (is_call(x, aten.add.Tensor, aten.sub.Tensor) and shape_of(x)[:-1] == rows for x in sums)
    if len(sums) != 2 or not all(are_sums):
        return None
    ends, numbers = [], 1
    for value in sums:
        ends.append(torch.arange(numbers, numbers + shape_of(value)[-1]))
        numbers += shape_of(value)[-1]
    order = _columns(node, rows, dict(zip(sums, ends, strict=True)))
    if order is None or order.shape != shape_of(node)[-1:] or not torch.equal(order.sort().values, torch.cat(ends)):
        return None
    order = order - 1
    for one, other in itertools.product(*map(_products, sums)):
        whole = _ancestor(one[0], shape_of(node))
        is_table = (_are_tables(shape_of(x), *found[1::2]) for x, found in zip(sums, (one, other), strict=True))
        if whole is None or not all(is_table):
            continue
        known = {whole: torch.arange(1, len(order) + 1)}
        (a, b), (c, d) = ((_columns(x, rows, known), _columns(y, rows, known)) for x, _, y, _ in (one, other))
        if a is None or b is None or c is None or d is None or not all(x.dim() == 1 for x in (a, b, c, d)):
            continue
        signs = [-1 if is_call(value, aten.sub.Tensor) else 1 for value in sums]
        direct, across = torch.cat((a, c))[order], torch.cat((b * signs[0], d * signs[1]))[order]
        if torch.equal(direct, known[whole]):
            x = tables.reshaped(whole, shape_of(node))
            cos, sin = (tables.joined((one[at], other[at]), order) for at in (1, 3))
            return Rotation(node, x, cos, sin, across)
    return None


def _products(node: Node) -> Iterator[tuple[Node, Node, Node, Node]]:
    """Every x, cos, turned, sin of a node x * cos ± turned * sin."""
    for pattern in (SUM, DIFFERENCE):
        for found in pattern.matches(node, {}):
            yield tuple(found.values())


def _ancestor(x: Node, shape: tuple[int, ...]) -> Node | None:
    """What x is moved from that has so many elements in so many rows."""
    while is_call(x, *MOVES) and not is_call(x, aten.cat.default, aten.neg.default):
        x = x.args[0]
        value = x.meta["val"]
        rows = len(shape) - 1
        if (
            isinstance(value, torch.Tensor)
            and shape_of(x)[:rows] == shape[:rows]
            and math.prod(shape_of(x)[rows:]) == shape[-1]
        ):
            return x
    return None


def _columns(node: Node, rows: tuple[int, ...], known: dict[Node, torch.Tensor]) -> torch.Tensor | None:
    """What `node` makes of columns: the numbers of its own; None where it does more than move and negate them.

    What is moved may have several dimensions in place of the last one, as neighbours have on their way into pairs.

    rows: the leading dimensions of all; known: the numbers of the columns that it may be made of, by value
    """
    ones = [1] * len(rows)
    values = {x: numbers.reshape(*ones, *shape_of(x)[len(rows) :]) for x, numbers in known.items()}
    for move in needed_for(node, lambda n: n in known or not is_call(n, *MOVES)):
        if move in values:
            continue
        if not is_call(move, *MOVES) or not all(operand in values for operand in move.all_input_nodes):
            return None
        if any(value.shape[: len(rows)] != rows for value in values_of(move)):
            return None
        args = map_arg(move.args, values.__getitem__)
        sizes = [[*ones, *shape_of(move)[len(rows) :]]] if is_call(move, aten.reshape.default) else args[1:]
        values[move] = move.target(args[0], *sizes, **move.kwargs)
    return values[node].reshape(shape_of(node)[len(rows) :])


def _of_whole(rotation: Rotation, tables: Tables) -> Rotation | None:
    """The rotation of all columns or tokens, where this one's are joined with the others of what they were cut from.

    Others may turn by tables of their own, as those of a picture's rows and of its columns do.
    """
    joined = only_user(rotation.last)
    if joined is None or not is_call(joined, aten.cat.default):
        return None
    dim, at = argument(joined, 1, 0) % len(shape_of(joined)) - len(shape_of(joined)), 0
    turns: list[tuple[int, Rotation]] = []
    wholes = set()
    for part in joined.args[0]:
        turn = rotation if part is rotation.last else _rotation(part)
        cut = cut_of(turn.x if turn else part, dim)
        if cut is None or cut[1] != at:
            return None
        turns += [(at, turn)] if turn else []
        wholes.add(cut[0])
        at += shape_of(part)[dim]
    whole, start = wholes.pop(), turns[0][0]
    size = sum(shape_of(turn.last)[dim] for _, turn in turns)
    around = (start, at - start - size)
    shapes = {(*shape_of(turn.cos)[:-1], *shape_of(turn.last)[dim:-1]) for _, turn in turns}
    if (
        wholes
        or shape_of(joined) != shape_of(whole)
        or len(shapes) > 1
        or turns[-1][0] + shape_of(turns[-1][1].last)[dim] != start + size
    ):
        return None
    columns = rotation.columns
    if dim == -1:
        columns = torch.cat([turn.columns + offset * turn.columns.sign() for offset, turn in turns])
        columns = torch.nn.functional.pad(columns, around)
    elif len(turns) > 1 or shape_of(rotation.cos)[dim : dim + 1] != (size,):
        return None
    cos, sin = (
        tables.widened(tables.joined([turn[at] for _, turn in turns]), dim, around, fill)
        for at, fill in ((2, 1.0), (3, 0.0))
    )
    return Rotation(joined, whole, cos, sin, columns)


def _layout(shape: tuple[int, ...], cos: Node) -> Layout | None:
    """How rotary takes x of this shape: [batch, heads, seq, head_dim] and tables [batch or 1, 1, seq, head_dim].

    None where the tables are neither those of positions in front of the last dimension nor of those behind the batch.
    """
    rank, width = len(shape), shape[-1]
    table = (*[1] * (rank - len(shape_of(cos))), *shape_of(cos))
    batch, seq, between = table[0], shape[-2], table[1:-2]
    if rank == 3 and batch == 1:  # heads and batch are one
        return Layout((1, *shape), False, (1, 1, seq, width)) if table[1] == seq else None
    if rank == 3:
        return Layout((shape[0], 1, *shape[1:]), False, (batch, 1, seq, width)) if table[:2] == shape[:2] else None
    if batch not in (1, shape[0]):
        return None
    if table[-2] == seq and math.prod(between) == 1:
        heads = math.prod(shape[1:-2])
        return Layout((shape[0], heads, seq, width), False, (batch, 1, seq, width))
    if table[-2] == seq and batch == 1 and rank == 4 and between == shape[1:2]:  # each head has tables of its own
        return Layout((shape[0], 1, shape[1] * seq, width), False, (1, 1, shape[1] * seq, width))
    if table[1] == shape[1] and math.prod(table[2:-1]) == 1:
        return Layout((*shape[:2], math.prod(shape[2:-1]), width), True, (batch, 1, shape[1], width))
    return None


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
