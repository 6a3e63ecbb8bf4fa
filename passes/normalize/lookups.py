"""Whatever moves whole rows by their numbers becomes one lookup of rows: rolls, flips, indexing, reflected padding.

Before   y = roll(x, (3, 3), (1, 2));   y = reshape(permute(reshape(y)))      z = x[:, ids]
After    y = look_up(x, rows)                                                 z = look_up(x, index_numbers(ids))

Before   y = index_put(x, [ids], values)                y = slice_scatter(x, values, 2, 0, 8, 2)
After    y = look_up(cat(x, values), put_numbers(ids))  y = look_up(cat(x, values), rows)

A row is what lies along the last dimension. What moves elements to known positions is run once on the numbers of its
source's elements: where rows stay whole, their new order is a constant of the program, and any run of such moves is one
call. Where the last dimension moves and another stays, that one is brought to the end first; where none stays, elements
are picked one by one. Indices that are computed are turned into numbers on the host, by indexing an arange: eager torch
itself checks them and wraps the negative ones. A write is a lookup in the value and, behind it, what is written; eager
torch decides between writes to one place.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import (
    Context,
    aten,
    constant_nodes,
    dtype_of,
    is_call,
    literal_value,
    literals_behind,
    only_user,
    shape_of,
)
from tt_dynamo.passes.movement import numbered, run
from tt_dynamo.passes.rewrite import Rules, argument, emit
from tt_dynamo.passes.rows import BY_DIMENSION, LIMIT, indices_of, literal, movable, rows_of

# What moves elements to positions that its arguments alone say, and is worth a lookup.
ROW_MOVES = (
    *(getattr(aten, f"{kind}_pad{rank}d").default for kind in ("reflection", "replication") for rank in (1, 2, 3)),
    aten.roll.default,
    aten.flip.default,
    aten.unfold.default,
    aten.diagonal.default,
    aten.im2col.default,
)
# What may come before or after them in the same lookup.
ALONGSIDE = (
    *ROW_MOVES,
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.permute.default,
    aten.transpose.int,
    aten.slice.Tensor,
    aten.select.int,
    aten.clone.default,
)
INDEXING = (aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_select.default, aten.take.default)

READS, WRITES = Rules(), Rules()


def index_to_embedding(graph: Graph, context: Context) -> int:
    """Replace each such read; returns how many."""
    return READS.apply(graph, leave=constant_nodes)


def index_put_to_embedding(graph: Graph, context: Context) -> int:
    """Replace each such write; returns how many."""
    return WRITES.apply(graph, leave=constant_nodes)


# --- positions that are known ----------------------------------------------------------------------------------------


@READS.on(*ALONGSIDE)
def _join(node: Node) -> Node | None:
    """A move behind a lookup of known rows is part of it."""
    found = node.args[0]
    if not is_call(found, operators.look_up) or only_user(found) is not node or not movable(node):
        return None
    rows, moved = literal_value(found.args[1], literals_behind(found.args[1]), LIMIT), _row_numbers(node)
    return None if rows is None or moved is None else _looked_up(node, found.args[0], rows.reshape(-1)[moved])


@READS.on(*ROW_MOVES, *INDEXING)
def _move(node: Node) -> Node | None:
    numbers = _numbers(node) if movable(node) else None
    return None if numbers is None else _read(node, node.args[0], numbers)


def _numbers(node: Node) -> torch.Tensor | None:
    """For each element of `node`, its number in the operand; None where it is not known."""
    x, *indices = node.all_input_nodes
    known = {index: literal_value(index, literals_behind(index), LIMIT) for index in indices}
    if any(value is None for value in known.values()) or not shape_of(x) or not 0 < math.prod(shape_of(x)) <= LIMIT:
        return None
    if node.target is aten.im2col.default and any(node.args[3]):
        return None  # the padding's zeros are no elements of the operand
    # not every padding is there for integers; float64 counts to 2^53
    try:
        return run(node, {x: numbered(shape_of(x), torch.float64), **known}).long()
    except (IndexError, RuntimeError):
        return None  # an index out of bounds is an error of the call that meets it


def _row_numbers(node: Node) -> torch.Tensor | None:
    """For each row of `node`, its number in the operand; None where rows do not stay whole."""
    numbers = _numbers(node)
    return None if numbers is None else rows_of(numbers, shape_of(node.args[0])[-1])


def _read(node: Node, x: Node, numbers: torch.Tensor) -> Node:
    """`node`, which reads x at `numbers`, as a reshape, slices, a lookup of rows, or picked elements."""
    shape = shape_of(x)
    every = numbered(shape, torch.int64)
    if torch.equal(numbers.reshape(-1), every.reshape(-1)):
        return emit(node, aten.reshape.default, x, list(numbers.shape))
    slices = _slices(node, x, numbers)
    if slices is not None:
        return slices
    last = len(shape) - 1
    for dim in sorted(range(len(shape)), key=lambda dim: (dim != last, -shape[dim])):
        # The number of each element where rows lie along `dim`.
        by_row = numbered(every.movedim(dim, -1).shape, torch.int64).movedim(-1, dim).reshape(-1)
        for place in reversed(range(numbers.dim()) if shape[dim] > 1 or dim == last else ()):
            rows = rows_of(by_row[numbers].movedim(place, -1), shape[dim])
            if rows is not None:
                return _moved(node, _looked_up(node, _moved(node, x, dim, last), rows), rows.dim(), place)
    return emit(node, operators.pick, x, literal(node, numbers))


def _looked_up(node: Node, x: Node, rows: torch.Tensor) -> Node:
    """Rows of x by known numbers, read where moves that nothing else reads have them from."""
    while is_call(x, *ALONGSIDE) and only_user(x) is not None and movable(x):
        before = _row_numbers(x)
        if before is None:
            break
        x, rows = x.args[0], before.reshape(-1)[rows]
    return emit(node, operators.look_up, x, literal(node, rows))


def _slices(node: Node, x: Node, numbers: torch.Tensor) -> Node | None:
    """Slices of x, where the positions along each dimension are evenly spaced and rise."""
    read = numbered(shape_of(x), torch.int64)
    if numbers.dim() != read.dim():
        return None
    cuts = []
    for dim, (size, stride) in enumerate(zip(read.shape, read.stride(), strict=True)):
        line = (numbers.movedim(dim, 0).reshape(numbers.shape[dim], -1)[:, 0] // stride % size).tolist()
        step = max(1, line[1] - line[0]) if len(line) > 1 else 1
        cuts.append((dim, line[0], line[-1] + 1, step))
    for cut in cuts:
        read = aten.slice.Tensor(read, *cut)
    if not torch.equal(read, numbers):
        return None
    for cut in cuts:
        x = x if cut[1:] == (0, shape_of(x)[cut[0]], 1) else emit(node, aten.slice.Tensor, x, *cut)
    return x


@READS.on(aten.as_strided.default)
def _as_strided(node: Node) -> Node | None:
    """as_strided on memory whose layout is known: `keep_strides` wrote it down, or nothing but x lies in it."""
    x, size, stride, *rest = node.args
    value = x.meta["val"]
    if is_call(x, aten.copy.default) and is_call(x.args[0], aten.new_empty_strided.default):
        x = x.args[1]
    elif value.storage_offset() or not value.is_contiguous():
        return None
    offset = rest[0] if rest and rest[0] else 0
    layouts = (value.shape, value.stride()), (size, stride)
    reach = [1 + sum((n - 1) * s for n, s in zip(*layout, strict=True)) for layout in layouts]
    if not movable(node) or max(reach) + offset > LIMIT:
        return None
    memory = torch.full((max(reach) + offset,), -1)
    memory.as_strided(value.shape, value.stride()).copy_(numbered(value.shape))
    numbers = memory.as_strided(size, stride, offset)
    return None if bool((numbers < 0).any()) else _read(node, x, numbers)  # not what no element of x wrote


@WRITES.on(aten.slice_scatter.default, aten.diagonal_scatter.default)
def _scatter(node: Node) -> Node | None:
    """Values at known positions: each row of the result is one of x or one of the values behind it."""
    x, values = node.args[:2]
    if dtype_of(x) != dtype_of(values) or not movable(values) or not movable(node) or not shape_of(x):
        return None
    first, width = math.prod(shape_of(x)), shape_of(x)[-1]
    written = numbered(shape_of(values), torch.int64) + first
    numbers = run(node, {x: numbered(shape_of(x), torch.int64), values: written})
    rows = rows_of(numbers, width) if shape_of(values)[-1:] == (width,) else None
    if rows is None:
        return emit(node, operators.pick, _behind(node, x, values), literal(node, numbers))
    return emit(node, operators.look_up, _behind(node, x, values, width), literal(node, rows))


# --- positions that are computed -------------------------------------------------------------------------------------


@READS.on(*INDEXING)
def _index(node: Node) -> Node | None:
    x, shape = node.args[0], shape_of(node.args[0])
    if not movable(node):
        return None
    if node.target is aten.take.default:
        indices, shape, kept = [node.args[1]], (math.prod(shape),), None
    else:
        found = indices_of(node)
        if found is None:
            return None
        indices, kept = _from_the_front(node, found), _kept_dimension(found, shape)
    if kept is None:
        return emit(node, operators.pick, x, emit(node, operators.index_numbers, indices, list(shape)))
    place, rank = _place_of(kept, indices)
    sizes = [1 if dim == kept else size for dim, size in enumerate(shape)]
    rows = emit(node, operators.index_numbers, indices, sizes, place)
    new = emit(node, operators.look_up, _moved(node, x, kept, len(shape) - 1), rows)
    return _moved(node, new, rank - 1, place)


@WRITES.on(aten.index_put.default, aten.index_copy.default)
def _put(node: Node) -> Node | None:
    """index_put and index_copy without accumulation."""
    x, values = node.args[0], argument(node, 3 if node.target is aten.index_copy.default else 2)
    accumulate = node.target is aten.index_put.default and argument(node, 3, False)
    found, shape = indices_of(node), shape_of(x)
    if found is None or accumulate or dtype_of(x) != dtype_of(values) or not movable(values) or not movable(node):
        return None
    kept, indices = _kept_dimension(found, shape), _from_the_front(node, found)
    if kept is None:
        places = emit(node, operators.put_numbers, indices, list(shape), list(shape_of(values)))
        return emit(node, operators.pick, _behind(node, x, values), places)
    place, rank = _place_of(kept, indices)
    full = [1] * (rank - len(shape_of(values))) + list(shape_of(values))
    values = emit(node, aten.expand.default, values, [*full[:place], shape[kept], *full[place + 1 :]])
    sizes = [1 if dim == kept else size for dim, size in enumerate(shape)]
    rows = emit(node, operators.put_numbers, indices, sizes, [*full[:place], 1, *full[place + 1 :]], kept)
    parts = _moved(node, x, kept, len(shape) - 1), _moved(node, values, place, rank - 1)
    return _moved(node, emit(node, operators.look_up, _behind(node, *parts, shape[kept]), rows), len(shape) - 1, kept)


def _from_the_front(node: Node, indices: list[Any]) -> list[Any]:
    """The indices, checked to count from the front alone where the operation wants that."""
    if node.target not in BY_DIMENSION:
        return indices
    pairs = zip(indices, shape_of(node.args[0]), strict=True)
    return [index and emit(node, operators.bounded, index, size) for index, size in pairs]


def _kept_dimension(indices: list[Any], shape: tuple[int, ...]) -> int | None:
    """The dimension to read whole: the last where it is not indexed, else the largest that is not."""
    free = [dim for dim, index in enumerate(indices) if index is None and shape[dim] > 1]
    return max(free, key=lambda dim: (dim == len(shape) - 1, shape[dim]), default=None)


def _place_of(dim: int, indices: list[Any]) -> tuple[int, int]:
    """Where a dimension that is not indexed lies in x[indices], and how many dimensions that has."""
    probe = torch.empty([2 if d == dim else 1 for d in range(len(indices))])
    zeros = [index and torch.zeros([1] * len(shape_of(index)), dtype=torch.int64) for index in indices]
    shape = aten.index.Tensor(probe, zeros).shape
    return list(shape).index(2), len(shape)


def _moved(node: Node, x: Node, dim: int, place: int) -> Node:
    """x with dimension `dim` moved to `place`."""
    order = list(range(len(shape_of(x))))
    order.insert(place, order.pop(dim))
    return x if dim == place else emit(node, aten.permute.default, x, order)


def _behind(node: Node, x: Node, values: Node, width: int | None = None) -> Node:
    """The rows of x and behind them the rows of values, or their elements where `width` is None."""
    shape = [-1] if width is None else [-1, width]
    return emit(node, aten.cat.default, [emit(node, aten.reshape.default, part, shape) for part in (x, values)])
