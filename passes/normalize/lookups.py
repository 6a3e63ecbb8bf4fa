"""Whatever moves whole rows by their numbers becomes one lookup of rows: rolls, flips, indexing, reflected padding.

Before   y = roll(x, (3, 3), (1, 2));   y = reshape(permute(reshape(y)))      z = x[:, ids]
After    y = look_up(x, rows)                                                 z = look_up(x, index_numbers(ids))

Before   y = index_put(x, [ids], values)                y = slice_scatter(x, values, 2, 0, 8, 2)
After    y = look_up(cat(x, values), put_numbers(ids))  y = look_up(cat(x, values), rows)

A row is what lies along the last dimension. What moves elements to known positions is run once on their numbers: where
rows stay whole, their new order is a constant of the program, and any run of such moves is one call. Where the last
dimension moves and another stays, that one is brought to the end first; where none stays, elements are picked one by
one. Computed indices become numbers on the host, by indexing an arange: eager torch itself checks them, wraps the
negative ones and decides between writes to one place. A write is a lookup in the value and, behind it, what is written.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dtype_of, is_call, literal_value, only_user, shape_of
from tt_dynamo.passes.movement import VIEWS, numbered, numbered_memory, run
from tt_dynamo.passes.normalize.canonicalize import RESHAPES
from tt_dynamo.passes.normalize.found_rows import as_found
from tt_dynamo.passes.rewrite import Rules, argument, emit
from tt_dynamo.passes.rows import BY_DIMENSION, LIMIT, among, indices_of, literal, movable, rows_of

PADS = [f"{kind}_pad{rank}d" for kind in ("reflection", "replication") for rank in (1, 2, 3)]
# What moves elements to positions that its arguments alone say, and is worth a lookup.
ROW_MOVES = tuple(getattr(aten, name).default for name in (*PADS, "roll", "flip", "unfold", "diagonal", "im2col"))
# What may come before or after them in the same lookup.
COPIES = (aten.clone.default, aten.alias.default)
ALONGSIDE = (*ROW_MOVES, *RESHAPES, *VIEWS, aten.transpose.int, *COPIES)
INDEXING = (aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_select.default, aten.take.default)
PRODUCTS = (aten.matmul.default, aten.bmm.default, aten.scaled_dot_product_attention.default, operator.getitem)

READS, WRITES = Rules(), Rules()


def index_to_embedding(graph: Graph, context: Context) -> int:
    """Replace each such read; returns how many."""
    return READS.apply(graph, leave=constant_nodes)


def index_put_to_embedding(graph: Graph, context: Context) -> int:
    """Replace each such write; returns how many."""
    return WRITES.apply(graph, leave=constant_nodes)


@READS.on(*ALONGSIDE)
def _join(node: Node) -> Node | None:
    """A move behind a lookup of known rows is part of it."""
    found = node.args[0]
    if not is_call(found, operators.look_up) or only_user(found) is not node or not movable(node):
        return None
    rows, moved = literal_value(found.args[1]), _row_numbers(node)
    return None if rows is None or moved is None else _looked_up(node, found.args[0], rows.reshape(-1)[moved])


@READS.on(aten.permute.default, aten.transpose.int)
def _window(node: Node) -> Node | None:
    """Rows of an image that become those of its windows, or of windows those of an image: parts of height and width.

    Not heads, which are parts of a row in a reshape before, or come out of a product and become parts of one; nor what
    divides one dimension alone, as shuffled channels do.
    """
    shape = shape_of(node)
    if len(shape) < 5 or not movable(node):
        return None
    source = before = _behind(node.args[0], COPIES)
    if is_call(source, *RESHAPES):
        before = _behind(source, (*COPIES, *RESHAPES))
    is_split = before is not source and (shape_of(before)[-1] > shape[-1] or len(shape) < len(shape_of(before)) + 2)
    behind = [user for user in node.users if is_call(user, *COPIES)] or [node]
    readers = [user for at in behind for user in at.users if is_call(user, *RESHAPES)]
    is_merged = any(shape_of(user)[-1:] != shape[-1:] for user in readers)
    if is_split or (is_merged and (before is source or is_call(before, *PRODUCTS))):
        return None
    rows = _row_numbers(node)
    if rows is None or torch.equal(rows.reshape(-1), torch.arange(rows.numel())):
        return None
    return _looked_up(node, node.args[0], rows)


def _behind(node: Node, targets: tuple[Any, ...]) -> Node:
    while is_call(node, *targets):
        node = node.args[0]
    return node


@READS.on(aten.index.Tensor, aten.index_select.default)
def _slice(node: Node) -> Node | None:
    """One index that is known and rises evenly is a slice."""
    given = [(dim, index) for dim, index in enumerate(indices_of(node) or ()) if index is not None]
    known = literal_value(given[0][1]) if len(given) == 1 and movable(node) else None
    if known is None or known.dim() != 1:
        return None
    dim, size = given[0][0], shape_of(node.args[0])[given[0][0]]
    first = 0 if node.target in BY_DIMENSION else -size
    line = [place % size for place in known.tolist() if first <= place < size]
    cut = range(line[0], line[-1] + 1, max(1, line[1] - line[0]) if len(line) > 1 else 1) if line else range(0)
    is_slice = list(cut) == line and len(line) == len(known)
    return emit(node, aten.slice.Tensor, node.args[0], dim, cut.start, cut.stop, cut.step) if is_slice else None


@READS.on(aten.gather.default)
def _gather_rows(node: Node) -> Node | None:
    """A gather that takes whole rows of one table, as GPT-J looks up sines, is a lookup."""
    x, dim, index, *_ = node.args
    checked = is_call(index, operators.bounded)
    spread, rank = index.args[0] if checked else index, len(shape_of(x))
    repeats = (aten.expand.default, aten.repeat.default)
    if not is_call(spread, *repeats) or rank < 2 or dim % rank != rank - 2 or shape_of(index)[-1] != shape_of(x)[-1]:
        return None
    rows = spread.args[0]
    if shape_of(rows) != (*shape_of(index)[:-1], 1):
        return None
    while is_call(x, *repeats) and shape_of(x.args[0])[-2:] == shape_of(x)[-2:]:
        x = x.args[0]
    if math.prod(shape_of(x)[:-2]) != 1 or not dtype_of(x).is_floating_point:
        return None
    rows = emit(node, aten.reshape.default, rows, list(shape_of(index)[:-1]))
    rows = emit(node, operators.bounded, rows, shape_of(x)[-2]) if checked else rows
    return emit(node, aten.embedding.default, emit(node, aten.reshape.default, x, list(shape_of(x)[-2:])), rows)


@READS.on(*ROW_MOVES, *INDEXING)
def _move(node: Node) -> Node | None:
    numbers = _numbers(node) if movable(node) else None
    return None if numbers is None else _read(node, node.args[0], numbers)


def _numbers(node: Node) -> torch.Tensor | None:
    """For each element of `node`, its number in the operand; None where it is not known."""
    x, *indices = node.all_input_nodes
    known = {index: literal_value(index) for index in indices}
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
    """`node`, which reads x at `numbers`, as a reshape, a lookup of rows, or picked elements."""
    shape = shape_of(x)
    every = numbered(shape, torch.int64)
    if torch.equal(numbers.reshape(-1), every.reshape(-1)):
        return emit(node, aten.reshape.default, x, list(numbers.shape))
    last = len(shape) - 1
    dims = [dim for dim, size in enumerate(shape) if size > 1 or dim == last]
    for dim in sorted(dims, key=lambda dim: (dim != last, -shape[dim])):
        # The number of each element where rows lie along `dim`.
        by_row = numbered(every.movedim(dim, -1).shape, torch.int64).movedim(-1, dim).reshape(-1)
        for place in reversed(range(numbers.dim())):
            rows = rows_of(by_row[numbers].movedim(place, -1), shape[dim])
            if rows is not None:
                return _moved(node, _looked_up(node, _moved(node, x, dim, -1), rows), -1, place)
    return emit(node, operators.pick, x, literal(node, numbers))


def _looked_up(node: Node, x: Node, rows: torch.Tensor) -> Node:
    """Rows of x by known numbers, read where moves that nothing else reads have them from."""
    while is_call(x, *ALONGSIDE) and only_user(x) is not None and movable(x):
        before = _row_numbers(x)
        if before is None:
            break
        x, rows = x.args[0], before.reshape(-1)[rows]
    return emit(node, operators.look_up, x, literal(node, rows))


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
    numbers = numbered_memory(value, max(reach) + offset).as_strided(size, stride, offset)
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
        return among(node, x, values, literal(node, numbers))
    return among(node, x, values, literal(node, rows), width)


@READS.on(aten.embedding.default)
def _embedding(node: Node) -> Node | None:
    """Rows of a table that the device itself found."""
    table, index, *rest = node.args
    places = None if is_call(index, operators.found) else as_found(node, index, shape_of(table)[0])
    return None if places is None else emit(node, node.target, table, places, *rest, **node.kwargs)


@READS.on(aten.index.Tensor, aten.index_select.default)
def _found_rows(node: Node) -> Node | None:
    """The same for one index of a value that has no other rows."""
    given = [(dim, index) for dim, index in enumerate(indices_of(node) or ()) if index is not None]
    if len(given) != 1 or not movable(node):
        return None
    dim, index = given[0]
    x, shape = node.args[0], shape_of(node.args[0])
    if len(shape) < 2 or dim == len(shape) - 1 or math.prod(shape[:-1]) != shape[dim]:
        return None
    places = as_found(node, index, shape[dim])
    found = places and emit(node, operators.look_up, x, places)
    return found and emit(node, aten.reshape.default, found, list(shape_of(node)))


@READS.on(*INDEXING)
def _index(node: Node) -> Node | None:
    x, is_flat = node.args[0], node.target is aten.take.default
    indices, shape = ([node.args[1]], (math.prod(shape_of(x)),)) if is_flat else (indices_of(node), shape_of(x))
    if indices is None or not movable(node):
        return None
    kept, indices = _kept_dimension(indices, shape), _from_the_front(node, indices)
    if kept is None:
        return emit(node, operators.pick, x, emit(node, operators.index_numbers, indices, list(shape)))
    place, _ = _place_of(kept, indices)
    rows = emit(node, operators.index_numbers, indices, _without(shape, kept), place)
    return _moved(node, emit(node, operators.look_up, _moved(node, x, kept, -1), rows), -1, place)


@WRITES.on(aten.index_put.default, aten.index_copy.default)
def _put(node: Node) -> Node | None:
    """index_put and index_copy without accumulation."""
    x, values = node.args[0], argument(node, 3 if node.target is aten.index_copy.default else 2)
    accumulate = node.target is aten.index_put.default and argument(node, 3, False)
    indices, shape = indices_of(node), shape_of(x)
    if indices is None or accumulate or dtype_of(x) != dtype_of(values) or not movable(values) or not movable(node):
        return None
    kept, indices = _kept_dimension(indices, shape), _from_the_front(node, indices)
    if kept is None:
        numbers = emit(node, operators.put_numbers, indices, list(shape), list(shape_of(values)))
        return among(node, x, values, numbers)
    place, rank = _place_of(kept, indices)
    spread = [1] * (rank - len(shape_of(values))) + list(shape_of(values))
    spread[place] = shape[kept]
    rows = emit(node, operators.put_numbers, indices, _without(shape, kept), _without(spread, place), kept)
    values = emit(node, aten.expand.default, values, spread)
    new = among(node, _moved(node, x, kept, -1), _moved(node, values, place, -1), rows, shape[kept])
    return _moved(node, new, -1, kept)


def _without(shape: Sequence[int], dim: int) -> list[int]:
    return [1 if d == dim else size for d, size in enumerate(shape)]


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
    """x with dimension `dim` moved to `place`; -1 is the last."""
    order = list(range(len(shape_of(x))))
    order.insert(place % len(order), order.pop(dim))
    return emit(node, aten.permute.default, x, order) if order != sorted(order) else x
