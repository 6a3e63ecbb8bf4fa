"""Caches that a graph writes into have their rows written in place, and stay on the device between calls.

Before   new = index_copy(cache, 2, arange(n) + start, x); …; copy_(cache, new)
After    new = update_cache(cache, x, position), or fill_cache(cache, x) for more than one token; …; copy_(cache, new)

Before   new = index_copy(zeros, 2, arange(n) + start, x);   output new
After    new = constant_pad_nd(x, …);                        output new, which stays on the device

Before   rolled = roll(cache, -1, 2);   new = index_put(rolled, [None, None, -1], x);   …; copy_(cache, new)
After    new = slide_cache(cache, x);   …; copy_(cache, new)

Only where nothing else reads the old contents. Each layer of a model counts its own tokens, and a prompt fills caches
from their first row: graphs are compiled as if all `start` were one (a single token) or 0 (more of them), which is
noted as `Assumption` and checked at every call. A slice of what a prompt wrote is then the prompt's own keys.
"""

from __future__ import annotations

import dataclasses

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import (
    Assumption,
    Context,
    Literals,
    aten,
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
from tt_dynamo.passes.rows import literal

TILE = 32
TOKENS = 2  # the dimension of a cache that counts them


@dataclasses.dataclass(frozen=True)
class _Write:
    """A write of `count` rows into a cache, which starts at row `start`: a number, or a node that holds one."""

    node: Node
    cache: Node
    values: Node
    positions: Node
    count: int
    start: Node | int

    @property
    def is_fresh(self) -> bool:
        return self.cache.op != "placeholder"

    @property
    def is_prompt(self) -> bool:
        return self.is_fresh or self.count > 1


def cache_writes_in_place(graph: Graph, context: Context) -> int:
    """Rewrite every write into a cache; returns how many."""
    literals = literal_nodes(graph)
    writes = [found for node in graph.nodes if (found := _write(node, literals)) is not None]
    if context.assume:
        _share_positions([write for write in writes if not write.is_prompt], context)
        _assume_start(graph, [write for write in writes if write.is_prompt], context)
    made = [_rewrite(graph, write) for write in writes if context.assume or not write.is_prompt or write.start == 0]
    _keep(graph, made)
    slid = _slide(graph)
    if made or slid:
        dead_code(graph)
    return len(made) + slid


def _slide(graph: Graph) -> int:
    """Rewrite every write of one token into a full cache that slides; returns how many."""
    literals, slid = literal_nodes(graph), 0
    for roll in graph.find_nodes(op="call_function", target=aten.roll.default):
        cache, shifts, dims = (*roll.args, [])[:3]
        write = only_user(roll)
        if list(shifts) != [-1] or len(shape_of(roll)) != 4 or [dim % 4 for dim in dims] != [TOKENS]:
            continue
        if write is None or not _is_last_row(write, roll, literals):
            continue
        for copy in [
            user for user in cache.users if is_call(user, aten.copy.default) and user.args[:2] == (cache, write)
        ]:
            replace(copy, write)
        values, shape = write.args[2], shape_of(cache)
        rows = (*shape[:TOKENS], 1, shape[3])
        if torch.Size(shape_of(values)).numel() != torch.Size(rows).numel() or not _is_overwritten(cache, roll):
            continue
        with graph.inserting_before(write):
            if shape_of(values) != rows:
                values = insert(graph, aten.reshape.default, (values, list(rows)), like=values)
            replace(write, insert(graph, operators.slide_cache, (cache, values), like=write))
        slid += 1
    return slid


def _is_last_row(write: Node, roll: Node, literals: Literals) -> bool:
    """Whether `write` is an index_put that replaces just the last row of what was rolled."""
    if not is_call(write, aten.index_put.default):
        return False
    target, indices, values, *accumulate = write.args
    if target is not roll or any(accumulate) or write.kwargs or dtype_of(values) != dtype_of(roll):
        return False
    if len(indices) != TOKENS + 1 or any(index is not None for index in indices[:TOKENS]):
        return False
    row = literal_value(indices[TOKENS], literals)
    return row is not None and row.shape == (1,) and int(row) in (-1, shape_of(roll)[TOKENS] - 1)


def _write(node: Node, literals: Literals) -> _Write | None:
    if not is_call(node, aten.index_copy.default):
        return None
    cache, dim, positions, values = node.args
    if len(shape_of(node)) != 4 or dim % 4 != TOKENS or dtype_of(values) != dtype_of(node):
        return None
    if not dtype_of(node).is_floating_point or not (_is_zeros(cache) or _is_overwritten(cache, node)):
        return None
    start, count, length = _start(positions, literals), shape_of(values)[TOKENS], shape_of(node)[TOKENS]
    if start is None or count > length or (isinstance(start, Node) and start.op != "placeholder"):
        return None
    write = _Write(node, cache, values, positions, count, start)
    return write if isinstance(start, Node) or start in range(1 if write.is_prompt else length) else None


def _is_overwritten(cache: Node, node: Node) -> bool:
    """Whether the graph leaves in its input `cache` what `node` makes of it, and nothing reads what was there."""
    users = list(cache.users)
    writes = [user for user in users if is_call(user, aten.copy_.default) and user.args[0] is cache]
    return cache.op == "placeholder" and len(writes) == 1 and set(users) == {node, writes[0]}


def _is_zeros(cache: Node) -> bool:
    return is_call(cache, aten.zeros.default) and len(cache.users) == 1


def _start(positions: Node, literals: Literals) -> Node | int | None:
    """Where positions that count upward by one start: known ones, or those plus a number; one is its own start."""
    if shape_of(positions) == (1,) and positions.op == "placeholder":
        return positions
    known = literal_value(positions, literals)
    if known is not None:
        numbers = known.reshape(-1).tolist()
        return numbers[0] if numbers and numbers == list(range(numbers[0], numbers[0] + len(numbers))) else None
    if not is_call(positions, aten.add.Tensor) or positions.kwargs:
        return None
    for counting, start in (positions.args, positions.args[::-1]):
        known = literal_value(counting, literals) if isinstance(counting, Node) else None
        counts = known is not None and known.reshape(-1).tolist() == list(range(known.numel()))
        if counts and isinstance(start, Node) and shape_of(start) in ((), (1,)):
            return start
    return None


def _share_positions(writes: list[_Write], context: Context) -> None:
    """Let all writes of one token read the first one's position."""
    moving = [write for write in writes if isinstance(write.start, Node)]
    starts = list(dict.fromkeys(write.start for write in moving))
    if len(starts) > 1:
        context.assumptions.append(Assumption(tuple(start.name for start in starts if isinstance(start, Node)), None))
        for write in moving:
            write.node.update_arg(2, moving[0].positions)


def _assume_start(graph: Graph, writes: list[_Write], context: Context) -> None:
    """Have prompts start at the first row: for all that reads where, it is 0."""
    starts = [*dict.fromkeys(write.start for write in writes if isinstance(write.start, Node))]
    if not starts:
        return
    context.assumptions.append(Assumption(tuple(start.name for start in starts), 0))
    last = graph.find_nodes(op="placeholder")[-1]
    for start in starts:
        with graph.inserting_after(last):
            zero = insert(graph, aten.zeros.default, (list(shape_of(start)),), {"dtype": dtype_of(start)}, like=start)
        for user in list(start.users):
            if not is_call(user, aten.copy_.default):
                user.replace_input_with(start, zero)


def _rewrite(graph: Graph, write: _Write) -> Node:
    node, length = write.node, shape_of(write.node)[TOKENS]
    with graph.inserting_before(node):
        if write.is_fresh:
            missing = [0, 0, 0, length - write.count]
            new = insert(graph, aten.constant_pad_nd.default, (write.values, missing), like=node)
        elif write.is_prompt:
            new = insert(graph, operators.fill_cache, (write.cache, write.values, *_written(write, length)), like=node)
        else:
            new = insert(graph, operators.update_cache, (write.cache, write.values, node.args[2]), like=node)
    if write.is_prompt:
        for user in list(node.users):
            if is_call(user, aten.slice.Tensor) and list(user.args[1:]) == [TOKENS, 0, write.count]:
                replace(user, write.values)
    node.replace_all_uses_with(new, propagate_meta=False)
    graph.erase_node(node)
    return new


def _written(write: _Write, length: int) -> list[Node]:
    """Which rows of the tiles that a prompt ends in are its own, where others in them may hold something."""
    rows = min(write.count + -write.count % TILE, length)
    if rows == write.count:
        return []
    own = (torch.arange(rows) < write.count)[None, None, :, None]
    return [literal(write.values, own, f"first_{write.count}_of_{rows}_rows")]


def _keep(graph: Graph, made: list[Node]) -> None:
    """Note which outputs are caches that the graph makes: those of `made`, and what is copied into zeros."""
    output = graph.output_node()
    values = output.args[0]
    caches = {node for node in made if is_call(node, aten.constant_pad_nd.default)}
    caches |= {node for node in values if is_call(node, aten.copy.default) and _is_zeros(node.args[0])}
    known = output.meta.get("kept", [])
    output.meta["kept"] = [at for at, value in enumerate(values) if value in caches or at in known]
