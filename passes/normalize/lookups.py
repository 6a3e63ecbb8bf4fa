"""Whatever moves whole rows by their numbers becomes one lookup of rows: rolls, flips, indexing, reflected padding.

Before   y = roll(x, (3, 3), (1, 2));   y = reshape(permute(reshape(y)))      z = x[:, ids]
After    y = look_up(x, rows)                                                 z = look_up(x, index_numbers(ids))

A row is what lies along the last dimension. A chain of moves with known positions is run once on the numbers of its
source's elements: where rows stay whole, their new order is a constant of the program, and any run of such moves is one
call. Where the last dimension moves and another stays, that one is brought to the end first; where none stays, elements
are picked one by one. Indices that are computed are turned into numbers on the host, by indexing an arange: eager torch
itself checks them and wraps the negative ones.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import (
    Context,
    Literals,
    aten,
    constant_nodes,
    dead_code,
    is_call,
    literal_nodes,
    literal_value,
    only_user,
    replace,
    shape_of,
)
from tt_dynamo.passes.rewrite import emit
from tt_dynamo.passes.rows import (
    LIMIT,
    from_the_end,
    from_the_front,
    indices_of,
    kept_dimension,
    literal,
    movable,
    place_of,
    rows_of,
    to_the_end,
    with_last,
)

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


def index_to_embedding(graph: Graph, context: Context) -> int:
    """Replace each such operation; returns how many."""
    constants, literals = constant_nodes(graph), literal_nodes(graph)
    changed = 0
    for node in list(graph.nodes):
        if node.op != "call_function" or node in constants or not node.users or not movable(node):
            continue
        changed += _replacement(node, literals) is not None
    dead_code(graph)
    return changed


def _replacement(node: Node, literals: Literals) -> Node | None:
    if node.target is aten.as_strided.default:
        return _read_by_strides(node)
    if node.target in ROW_MOVES or node.target in INDEXING:
        numbers = _numbers(node, _run(node, literals))
        if numbers is not None:
            return _move(node, numbers)
    if node.target in INDEXING:
        return _index(node)
    return None


# --- positions that are known ----------------------------------------------------------------------------------------


def _run(node: Node, literals: Literals) -> Any:
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
    try:
        return run(torch.arange(math.prod(shape), dtype=torch.float64).view(shape)).long()
    except (IndexError, RuntimeError):
        return None  # an index out of bounds is an error of the call that meets it


def _move(node: Node, numbers: torch.Tensor) -> Node | None:
    """`node`, which reads its operand at `numbers`, as slices, a lookup of rows, or picked elements."""
    x = node.args[0]
    shape = shape_of(x)
    with node.graph.inserting_before(node):
        new = _as_view(node, numbers) or _as_slices(node, numbers)
        if new is None and rows_of(numbers, shape[-1]) is None:
            new = _elsewhere(node, numbers)
    if new is not None:
        replace(node, new)
        return new
    source, end, numbers = _longest(node, numbers)
    rows = rows_of(numbers, shape_of(source)[-1])
    assert rows is not None
    with node.graph.inserting_before(end):
        new = emit(end, operators.look_up, source, literal(node, rows))
    chain = [end]
    while chain[-1].args[0] is not source:
        chain.append(chain[-1].args[0])
    replace(end, new)
    for link in chain[1:]:  # the rest of a long chain is not to be looked at again, move by move
        node.graph.erase_node(link)
    return new


def _read_by_strides(node: Node) -> Node | None:
    """as_strided on memory whose layout is known: `keep_strides` wrote it down, or nothing but x lies in it."""
    x, size, stride, *rest = node.args
    value = x.meta["val"]
    if is_call(x, aten.copy.default) and is_call(x.args[0], aten.new_empty_strided.default):
        x = x.args[1]
    elif value.storage_offset() or not value.is_contiguous():
        return None
    steps = zip(value.shape, value.stride(), strict=True)
    reach = [1 + sum((n - 1) * s for n, s in steps), 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))]
    offset = rest[0] if rest and rest[0] else 0
    if max(reach) + offset > LIMIT:
        return None
    memory = torch.full((max(reach) + offset,), -1)
    memory.as_strided(value.shape, value.stride()).copy_(torch.arange(value.numel()).view(value.shape))
    numbers = memory.as_strided(size, stride, offset)
    if bool((numbers < 0).any()):
        return None  # what no element of x wrote
    node.args, node.kwargs = (x, size, stride, *rest), {}  # gone in a moment, with x as the value at its numbers
    return _move(node, numbers)


def _as_view(node: Node, numbers: torch.Tensor) -> Node | None:
    """Every element in order."""
    x, count = node.args[0], numbers.numel()
    if count != math.prod(shape_of(x)) or not torch.equal(numbers.reshape(-1), torch.arange(count)):
        return None
    return emit(node, aten.reshape.default, x, list(numbers.shape))


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
        x = emit(node, aten.slice.Tensor, x, *cut)
    return x


def _elsewhere(node: Node, numbers: torch.Tensor) -> Node:
    """Rows along another dimension that stays whole, brought to the end and back; elements where there is none."""
    x, shape = node.args[0], shape_of(node.args[0])
    count = math.prod(shape)
    for dim in sorted(range(len(shape)), key=lambda d: -shape[d]):
        order = to_the_end(dim, len(shape))
        moved = torch.empty(count, dtype=torch.int64)
        moved[torch.arange(count).view(shape).permute(order).reshape(-1)] = torch.arange(count)
        for place in range(numbers.dim()):
            if shape[dim] == 1 or numbers.shape[place] != shape[dim]:
                continue
            rows = rows_of(moved[numbers].permute(to_the_end(place, numbers.dim())), shape[dim])
            if rows is not None:
                source = emit(node, aten.permute.default, x, order)
                found = emit(node, operators.look_up, source, literal(node, rows))
                return from_the_end(found, place, node)
    return emit(node, operators.pick, x, literal(node, numbers))


def _longest(node: Node, numbers: torch.Tensor) -> tuple[Node, Node, torch.Tensor]:
    """The longest chain of moves around `node` that keeps rows whole: its source, its end, and the numbers."""
    source, end = node.args[0], node
    user = only_user(end)
    while user is not None and user.target in ALONGSIDE and user.args[0] is end and movable(user):
        further = _numbers(user, _run(user, Literals(())))
        if further is None or rows_of(further, shape_of(end)[-1]) is None:
            break
        numbers = numbers.reshape(-1)[further]
        end, user = user, only_user(user)
    while source.target in ALONGSIDE and only_user(source) is not None and movable(source):
        before = _numbers(source, _run(source, Literals(())))
        if before is None or rows_of(before, shape_of(source.args[0])[-1]) is None:
            break
        numbers = before.reshape(-1)[numbers]
        source = source.args[0]
    return source, end, numbers


# --- positions that are computed -------------------------------------------------------------------------------------


def _index(node: Node) -> Node | None:
    x, shape = node.args[0], shape_of(node.args[0])
    if node.target is aten.take.default:
        indices, shape, kept = [node.args[1]], (math.prod(shape),), None
    else:
        found = indices_of(node)
        if found is None:
            return None
        indices, kept = found, kept_dimension(found, shape)
    with node.graph.inserting_before(node):
        indices = from_the_front(node, indices)
        if kept is None:
            new = emit(node, operators.pick, x, emit(node, operators.index_numbers, indices, list(shape)))
        else:
            sizes, place = [1 if dim == kept else size for dim, size in enumerate(shape)], place_of(kept, indices)
            rows = emit(node, operators.index_numbers, indices, sizes, place)
            new = from_the_end(emit(node, operators.look_up, with_last(x, kept, node), rows), place, node)
    replace(node, new)
    return new
