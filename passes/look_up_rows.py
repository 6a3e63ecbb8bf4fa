"""Whatever moves whole rows by their numbers becomes one lookup of rows: rolls, flips, indexing, reflected padding.

Before   y = roll(x, (3, 3), (1, 2));   y = reshape(permute(reshape(y)))      z = x[:, ids]
After    y = look_up(x, rows)                                                 z = look_up(x, index_numbers(ids))

A row is what lies along the last dimension. A chain of moves with known positions is run once on the numbers of its
source's elements: where rows stay whole, their new order is a constant of the program, and any run of such moves is one
call. Where the last dimension moves and another stays, that one is brought to the end first; where none stays, elements
are picked one by one. Indices that are computed are turned into numbers on the host, by indexing an arange: eager torch
itself checks them and wraps the negative ones. Writes by index read from the value with the written ones behind it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo import operators
from tt_dynamo.graph import (
    Context,
    aten,
    constant_nodes,
    dead_code,
    dtype_of,
    insert,
    is_call,
    literal_nodes,
    literal_value,
    only_user,
    replace,
    shape_of,
)

# What the device holds as bfloat16: integers keep to the host, where they are exact.
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.bool)
# Numbers of larger tensors are not worth their memory.
LIMIT = 1 << 24

# What moves elements to positions that its arguments alone say, and is worth a lookup.
ROW_MOVES = frozenset(
    {
        aten.roll.default,
        aten.flip.default,
        aten.reflection_pad1d.default,
        aten.reflection_pad2d.default,
        aten.reflection_pad3d.default,
        aten.replication_pad1d.default,
        aten.replication_pad2d.default,
        aten.replication_pad3d.default,
        aten.unfold.default,
        aten.diagonal.default,
        aten.im2col.default,
    }
)
# What may come before or after them in the same lookup.
ALONGSIDE = ROW_MOVES | {
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
}
INDEXING = frozenset({aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_select.default, aten.take.default})
# Their first two tensors are a value and what is written into it.
WRITES = frozenset({aten.slice_scatter.default, aten.diagonal_scatter.default})


def look_up_rows(graph: Graph, context: Context) -> int:
    """Replace each such operation; returns how many."""
    constants, literals = constant_nodes(graph), literal_nodes(graph)
    changed = 0
    for node in list(graph.nodes):
        if node.op != "call_function" or node in constants or not node.users or not _movable(node):
            continue
        new = _replacement(node, literals)
        if new is not None:
            changed += 1
    dead_code(graph)
    return changed


def _movable(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in DTYPES and 0 < value.numel() <= LIMIT


def _replacement(node: Node, literals: set[Node]) -> Node | None:
    if node.target in ROW_MOVES or node.target in INDEXING:
        numbers = _numbers(node, _run(node, literals))
        if numbers is not None:
            return _move(node, numbers)
    if node.target in INDEXING:
        return _index(node)
    if node.target in WRITES:
        return _write(node)
    if node.target in (aten.index_put.default, aten.index_copy.default):
        return _put(node)
    return None


# --- positions that are known ----------------------------------------------------------------------------------------


def _run(node: Node, literals: set[Node]) -> Any:
    """A function that does to numbers what `node` does to its operand; None where its indices are not known."""
    values = {}
    for operand in node.all_input_nodes[1:]:
        values[operand] = literal_value(operand, literals, LIMIT)
        if values[operand] is None:
            return None
    args, kwargs = torch.fx.node.map_arg((node.args[1:], node.kwargs), lambda n: values[n])
    return lambda numbers: node.target(numbers, *args, **kwargs)


def _numbers(node: Node, run: Any) -> torch.Tensor | None:
    """For each element of `node`, its number in the operand."""
    shape = shape_of(node.args[0])
    if run is None or not shape or math.prod(shape) > LIMIT or math.prod(shape) == 0:
        return None
    if node.target is aten.im2col.default and any(node.args[3]):
        return None  # the padding's zeros are no elements of the operand
    # not every padding is there for integers; float64 counts to 2^53
    return run(torch.arange(math.prod(shape), dtype=torch.float64).view(shape)).long()


def _rows(numbers: torch.Tensor, width: int) -> torch.Tensor | None:
    """The number of the row that each row of `numbers` is, None where they are no whole rows of `width` elements."""
    if not numbers.dim() or numbers.shape[-1] != width:
        return None
    first = numbers[..., 0]
    whole = bool((first % width == 0).all()) and torch.equal(numbers, first.unsqueeze(-1) + torch.arange(width))
    return first // width if whole else None


def _move(node: Node, numbers: torch.Tensor) -> Node | None:
    """`node`, which reads its operand at `numbers`, as slices, a lookup of rows, or picked elements."""
    x = node.args[0]
    shape = shape_of(x)
    with node.graph.inserting_before(node):
        new = _as_slices(node, numbers)
        if new is None and _rows(numbers, shape[-1]) is None:
            new = _elsewhere(node, numbers)
    if new is not None:
        replace(node, new)
        return new
    source, end, numbers = _longest(node, numbers)
    rows = _rows(numbers, shape_of(source)[-1])
    assert rows is not None
    with node.graph.inserting_before(end):
        new = insert(node.graph, operators.look_up, (source, _literal(node, rows)), like=end)
    replace(end, new)
    return new


def _as_slices(node: Node, numbers: torch.Tensor) -> Node | None:
    """Slices, where the positions along each dimension are evenly spaced and rise."""
    shape = shape_of(node.args[0])
    if node.target not in INDEXING or numbers.dim() != len(shape):
        return None
    whole = torch.arange(math.prod(shape)).view(shape)
    cuts = []
    for dim, size in enumerate(shape):
        stride = math.prod(shape[dim + 1 :])
        line = numbers.transpose(0, dim).reshape(numbers.shape[dim], -1)[:, 0] // stride % size
        start, step = int(line[0]), int(line[1] - line[0]) if len(line) > 1 else 1
        if step < 1:
            return None
        end = start + step * (len(line) - 1) + 1
        whole = whole.narrow(dim, start, min(end, size) - start)[(slice(None),) * dim + (slice(None, None, step),)]
        if (start, end, step) != (0, size, 1):
            cuts.append((dim, start, end, step))
    if not torch.equal(whole, numbers):
        return None
    x = node.args[0]
    for cut in cuts:
        x = insert(node.graph, aten.slice.Tensor, (x, *cut), like=node)
    return x if cuts else insert(node.graph, aten.clone.default, (x,), like=node)


def _elsewhere(node: Node, numbers: torch.Tensor) -> Node:
    """Rows along another dimension that stays whole, brought to the end and back; elements where there is none."""
    x, shape = node.args[0], shape_of(node.args[0])
    count = math.prod(shape)
    for dim in sorted(range(len(shape)), key=lambda d: -shape[d]):
        order = _to_the_end(dim, len(shape))
        moved = torch.empty(count, dtype=torch.int64)
        moved[torch.arange(count).view(shape).permute(order).reshape(-1)] = torch.arange(count)
        for place in range(numbers.dim()):
            if shape[dim] == 1 or numbers.shape[place] != shape[dim]:
                continue
            rows = _rows(moved[numbers].permute(_to_the_end(place, numbers.dim())), shape[dim])
            if rows is not None:
                source = insert(node.graph, aten.permute.default, (x, order), like=node)
                found = insert(node.graph, operators.look_up, (source, _literal(node, rows)), like=node)
                return _from_the_end(found, place, node)
    return insert(node.graph, operators.pick, (x, _literal(node, numbers)), like=node)


def _to_the_end(dim: int, rank: int) -> list[int]:
    return [d for d in range(rank) if d != dim] + [dim]


def _from_the_end(x: Node, place: int, like: Node) -> Node:
    rank = len(shape_of(x))
    if place == rank - 1:
        return x
    order = [*range(place), rank - 1, *range(place, rank - 1)]
    return insert(x.graph, aten.permute.default, (x, order), like=like)


def _longest(node: Node, numbers: torch.Tensor) -> tuple[Node, Node, torch.Tensor]:
    """The longest chain of moves around `node` that keeps rows whole: its source, its end, and the numbers."""
    source, end = node.args[0], node
    user = only_user(end)
    while user is not None and user.target in ALONGSIDE and user.args[0] is end and _movable(user):
        further = _numbers(user, _run(user, set()))
        if further is None or _rows(further, shape_of(end)[-1]) is None:
            break
        numbers = numbers.reshape(-1)[further]
        end, user = user, only_user(user)
    while source.target in ALONGSIDE and only_user(source) is not None and _movable(source):
        before = _numbers(source, _run(source, set()))
        if before is None or _rows(before, shape_of(source.args[0])[-1]) is None:
            break
        numbers = before.reshape(-1)[numbers]
        source = source.args[0]
    return source, end, numbers


def _literal(node: Node, numbers: torch.Tensor) -> Node:
    """A node that stands for `numbers`, at the graph's insertion point."""
    root = node.graph.owning_module
    name = f"numbers_{sum(key.startswith('numbers_') for key, _ in root.named_buffers())}"
    root.register_buffer(name, numbers.contiguous())
    literal = node.graph.get_attr(name)
    mode = node.meta["val"].fake_mode
    literal.meta["val"] = mode.from_tensor(numbers.contiguous(), static_shapes=True)
    return literal


# --- positions that are computed -------------------------------------------------------------------------------------


def _indices(node: Node) -> list[Any] | None:
    """What indexes each dimension of the operand: a tensor of integers, or None for all of it."""
    rank = len(shape_of(node.args[0]))
    if node.target in (aten.index_select.default, aten.index_copy.default):
        dim = node.args[1] % max(rank, 1)
        indices = [None] * dim + [node.args[2]]
    else:
        indices = list(node.args[1])
    tensors = [index for index in indices if index is not None]
    if not tensors or not rank or any(dtype_of(index) not in (torch.int64, torch.int32) for index in tensors):
        return None
    if node.target in (aten.index_select.default, aten.index_copy.default) and not shape_of(tensors[0]):
        return None
    return indices + [None] * (rank - len(indices))


def _kept(indices: Sequence[Any], shape: tuple[int, ...]) -> int | None:
    """The dimension to read whole: the last where it is not indexed, else the largest that is not."""
    free = [dim for dim, index in enumerate(indices) if index is None and shape[dim] > 1]
    if len(shape) - 1 in free or not free:
        return free[-1] if free else None
    return max(free, key=lambda dim: shape[dim])


def _place_of(dim: int, indices: Sequence[Any]) -> int:
    """Where a dimension that is not indexed lies in x[indices]."""
    indexed = [d for d, index in enumerate(indices) if index is not None]
    rank = max(len(shape_of(index)) for index in indices if index is not None)
    before = sum(d not in indexed for d in range(dim))
    adjacent = indexed[-1] - indexed[0] + 1 == len(indexed)
    return before + (rank if not adjacent or dim > indexed[0] else 0)


def _index(node: Node) -> Node | None:
    x, shape = node.args[0], shape_of(node.args[0])
    if node.target is aten.take.default:
        indices, shape, kept = [node.args[1]], (math.prod(shape),), None
    else:
        found = _indices(node)
        if found is None:
            return None
        indices, kept = found, _kept(found, shape)
    graph = node.graph
    with graph.inserting_before(node):
        if kept is None:
            places = insert(graph, operators.index_numbers, (indices, list(shape)), like=node)
            new = insert(graph, operators.pick, (x, places), like=node)
        else:
            sizes, place = [1 if dim == kept else size for dim, size in enumerate(shape)], _place_of(kept, indices)
            rows = insert(graph, operators.index_numbers, (indices, sizes, place), like=node)
            new = insert(graph, operators.look_up, (_last(x, kept, node), rows), like=node)
            new = _from_the_end(new, place, node)
    replace(node, new)
    return new


def _last(x: Node, dim: int, like: Node) -> Node:
    """x with `dim` at the end."""
    rank = len(shape_of(x))
    return x if dim == rank - 1 else insert(x.graph, aten.permute.default, (x, _to_the_end(dim, rank)), like=like)


# --- writes ----------------------------------------------------------------------------------------------------------


def _write(node: Node) -> Node | None:
    """Values at known positions: each row of the result is one of x or one of the values behind it."""
    x, values, *rest = node.args
    if dtype_of(x) != dtype_of(values) or not _movable(values) or not shape_of(x):
        return None
    count = math.prod(shape_of(x))
    numbers = torch.arange(count + math.prod(shape_of(values)))
    parts = numbers[:count].view(shape_of(x)), numbers[count:].view(shape_of(values))
    return _read_behind(node, values, node.target(*parts, *rest, **node.kwargs))


def _read_behind(node: Node, values: Node, numbers: torch.Tensor) -> Node:
    """`node` as what lies at `numbers` in its operand and then `values`."""
    graph, shape = node.graph, shape_of(node.args[0])
    width = shape[-1]
    rows = _rows(numbers, width) if shape_of(values)[-1:] == (width,) else None
    with graph.inserting_before(node):
        table = _behind(node.args[0], values, width if rows is not None else 1, node)
        if rows is not None:
            new = insert(graph, operators.look_up, (table, _literal(node, rows)), like=node)
        else:
            new = insert(graph, operators.pick, (table, _literal(node, numbers)), like=node)
    replace(node, new)
    return new


def _behind(x: Node, values: Node, width: int, like: Node) -> Node:
    """The rows of x and behind them the rows of values, or their elements where `width` is 1."""
    shape = [-1, width] if width > 1 else [-1]
    flat = [insert(x.graph, aten.reshape.default, (part, shape), like=like) for part in (x, values)]
    return insert(x.graph, aten.cat.default, (flat,), like=like)


def _put(node: Node) -> Node | None:
    """index_put and index_copy without accumulation."""
    is_copy = node.target is aten.index_copy.default
    x, values = node.args[0], node.args[3 if is_copy else 2]
    accumulate = (*node.args[3:], node.kwargs.get("accumulate", False))[0] if not is_copy else False
    indices, shape = _indices(node), shape_of(x)
    if indices is None or accumulate or dtype_of(x) != dtype_of(values) or not _movable(values):
        return None
    kept, graph = _kept(indices, shape), node.graph
    with graph.inserting_before(node):
        if kept is None:
            places = insert(graph, operators.put_numbers, (indices, list(shape), list(shape_of(values))), like=node)
            new = insert(graph, operators.pick, (_behind(x, values, 1, node), places), like=node)
        else:
            place, rank = _place_of(kept, indices), _rank_of(indices)
            full = [1] * (rank - len(shape_of(values))) + list(shape_of(values))
            spread = [*full[:place], shape[kept], *full[place + 1 :]]
            values = insert(graph, aten.expand.default, (values, spread), like=node)
            sizes = [1 if dim == kept else size for dim, size in enumerate(shape)]
            written = [1 if dim == place else size for dim, size in enumerate(spread)]
            rows = insert(graph, operators.put_numbers, (indices, sizes, written, kept), like=node)
            table = _behind(_last(x, kept, node), _last(values, place, node), shape[kept], node)
            new = _from_the_end(insert(graph, operators.look_up, (table, rows), like=node), kept, node)
    replace(node, new)
    return new


def _rank_of(indices: Sequence[Any]) -> int:
    """The rank of x[indices]."""
    tensors = [index for index in indices if index is not None]
    return len(indices) - len(tensors) + max(len(shape_of(index)) for index in tensors)
