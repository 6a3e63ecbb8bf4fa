"""Caches that a graph writes into have their rows written in place, and stay on the device between calls.

Before   new = index_copy(cache, 2, arange(n) + start, x); …; copy_(cache, new)
After    new = update_cache(cache, x, position), or fill_cache(cache, x) for more than one token; …; copy_(cache, new)

Before   new = index_copy(zeros, 2, arange(n) + start, x);   output new
After    new = constant_pad_nd(x, …);                        output new, which stays on the device

Before   new = index_copy(cache, 2, positions, where(own, x, index_select(cache, 2, positions)));   …
After    new = fill_cache(cache, x, own);   …

Before   rolled = roll(cache, -1, 2);   new = index_put(rolled, [None, None, -1], x);   …; copy_(cache, new)
After    new = slide_cache(cache, x);   …; copy_(cache, new)

Only where nothing else reads the old contents. Each layer of a model counts its own tokens, and a prompt fills caches
from their first row: graphs are compiled as if all `start` were one (a single token) or 0 (more of them), which is
noted as `Assumption` and checked at every call. A slice of what a prompt wrote is then the prompt's own keys.
"""

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import Assumption, Context, aten, dead_code, dtype_of, is_call, literal_value, replace, shape_of
from tt_dynamo.passes.rewrite import Found, call, emit, is_anything, once, variable
from tt_dynamo.passes.rows import literal

TILE = 32
TOKENS = 2  # the dimension of a cache that counts them
ROLLED = call(aten.roll.default, variable("cache"), [-1], variable("dims", is_anything))
SLID = call(aten.index_put.default, once(ROLLED), variable("indices", is_anything), variable("values"))
PLACE = variable("cache"), TOKENS, variable("positions")
PARTLY = call(aten.where.self, variable("own"), variable("x"), once(call(aten.index_select.default, *PLACE)))


def cache_writes_in_place(graph: Graph, context: Context) -> int:
    """Rewrite every write into a cache; returns how many."""
    writes = graph.find_nodes(op="call_function", target=aten.index_copy.default)
    starts = {node: start for node in writes if (start := _start(node)) is not None}
    if context.assume:
        inputs = {node: start for node, start in starts.items() if isinstance(start, Node)}
        _share_positions({node: start for node, start in inputs.items() if not _is_prompt(node)}, context)
        _assume_start(graph, dict.fromkeys(inputs[node] for node in inputs if _is_prompt(node)), context)
    sure = [node for node, start in starts.items() if context.assume or start == 0 or not _is_prompt(node)]
    made = [_rewrite(graph, node) for node in sure]
    _keep(graph, made)
    slid = _slide(graph)
    if made or slid:
        dead_code(graph)
    return len(made) + slid


def _slide(graph: Graph) -> int:
    """Rewrite every write of one token into a full cache that slides; returns how many."""
    slid = 0
    for write in graph.find_nodes(op="call_function", target=aten.index_put.default):
        for cache, dims, indices, values in (found.values() for found in SLID.matches(write, {})):
            shape, row = shape_of(cache), values.meta["val"]
            if len(shape) != 4 or [dim % 4 for dim in dims] != [TOKENS] or not _is_last_row(indices, shape):
                continue
            if row.dtype != dtype_of(write) or row.numel() * shape[TOKENS] != torch.Size(shape).numel():
                continue
            for user in list(cache.users):
                if is_call(user, aten.copy.default) and user.args[:2] == (cache, write):
                    replace(user, write)
            if _is_overwritten(cache, write.args[0]):
                with graph.inserting_before(write):
                    values = emit(values, aten.reshape.default, values, [*shape[:TOKENS], 1, shape[-1]])
                    replace(write, emit(write, operators.slide_cache, cache, values))
                slid += 1
    return slid


def _is_last_row(indices: list[Node | None], shape: tuple[int, ...]) -> bool:
    *others, last = indices
    row = literal_value(last) if last is not None and others == [None] * TOKENS else None
    return row is not None and row.shape == (1,) and int(row) in (-1, shape[TOKENS] - 1)


def _start(node: Node) -> Node | int | None:
    """The row from which an index_copy writes into a cache: a number or an input; None where it does anything else."""
    cache, dim, positions, values = node.args
    if len(shape_of(node)) != 4 or dim % 4 != TOKENS or dtype_of(values) != dtype_of(node):
        return None
    if not dtype_of(node).is_floating_point or not (_is_zeros(cache) or _is_overwritten(cache, node)):
        return None
    count, length, start = shape_of(values)[TOKENS], shape_of(node)[TOKENS], _first(positions)
    may_start = isinstance(start, Node) or start in range(1 if _is_prompt(node) else length)
    return start if may_start and count <= length else None


def _is_prompt(node: Node) -> bool:
    return _is_zeros(node.args[0]) or shape_of(node.args[3])[TOKENS] > 1


def _is_overwritten(cache: Node, node: Node) -> bool:
    """Whether the graph leaves in its input `cache` what `node` makes of it, and nothing reads what was there."""
    partly = _partly(node)
    users = [user for user in cache.users if partly is None or user is not node.args[3].args[2]]
    writes = [user for user in users if is_call(user, aten.copy_.default) and user.args[0] is cache]
    return cache.op == "placeholder" and len(writes) == 1 and set(users) == {node, writes[0]}


def _partly(node: Node) -> Found | None:
    """What an index_copy writes of some rows only: `x` where `own` is true, and what there was."""
    values = node.args[3] if is_call(node, aten.index_copy.default) else None
    cache, _, positions = node.args[:3] if values is not None else (None, 0, None)
    return next(once(PARTLY).matches(values, {"cache": cache, "positions": positions}), None)


def _is_zeros(cache: Node) -> bool:
    return is_call(cache, aten.zeros.default) and len(cache.users) == 1


def _first(positions: Node) -> Node | int | None:
    """Where positions that count upward by one start: known ones, or those plus an input; one is its own start."""
    if positions.op == "placeholder":
        return positions if shape_of(positions) == (1,) else None
    if is_call(positions, aten.add.Tensor) and not positions.kwargs:
        for counting, start in (positions.args, positions.args[::-1]):
            is_input = isinstance(start, Node) and start.op == "placeholder" and shape_of(start) in ((), (1,))
            if is_input and _first_known(counting) == 0:
                return start
    return _first_known(positions)


def _first_known(positions: Node) -> int | None:
    known = literal_value(positions) if isinstance(positions, Node) else None
    numbers = [] if known is None else known.reshape(-1).tolist()
    return numbers[0] if numbers and numbers == list(range(numbers[0], numbers[0] + len(numbers))) else None


def _share_positions(starts: dict[Node, Node], context: Context) -> None:
    """Let all writes of one token read the first one's position."""
    different = dict.fromkeys(starts.values())
    if len(different) > 1:
        context.assumptions.append(Assumption(tuple(start.name for start in different), None))
        first, *others = starts
        for node in others:
            node.update_arg(2, first.args[2])


def _assume_start(graph: Graph, starts: dict[Node, None], context: Context) -> None:
    """Have prompts start at the first row: for all that reads where, it is 0."""
    if not starts:
        return
    context.assumptions.append(Assumption(tuple(start.name for start in starts), 0))
    last = graph.find_nodes(op="placeholder")[-1]
    for start in starts:
        with graph.inserting_after(last):
            zero = emit(start, aten.zeros.default, list(shape_of(start)), dtype=dtype_of(start))
        for user in list(start.users):
            if not is_call(user, aten.copy_.default):
                user.replace_input_with(start, zero)


def _rewrite(graph: Graph, node: Node) -> Node:
    """Replace an index_copy into a cache; what it is then."""
    partly, count = _partly(node), shape_of(node.args[3])[TOKENS]
    values = node.args[3] if partly is None else partly["x"]
    with graph.inserting_before(node):
        new = _written(node, count, shape_of(node)[TOKENS])
    for user in list(node.users) if _is_prompt(node) else ():
        if is_call(user, aten.slice.Tensor) and list(user.args[1:]) == [TOKENS, 0, count]:
            replace(user, values)
    node.replace_all_uses_with(new, propagate_meta=False)
    graph.erase_node(node)
    return new


def _written(node: Node, count: int, length: int) -> Node:
    cache, _, positions, values = node.args
    if _is_zeros(node.args[0]):
        return emit(node, aten.constant_pad_nd.default, values, [0, 0, 0, length - count])
    if count == 1:
        return emit(node, operators.update_cache, cache, values, positions)
    rows, partly = min(count + -count % TILE, length), _partly(node)
    if partly is not None:
        own = emit(values, aten.constant_pad_nd.default, partly["own"], [0, 0, 0, rows - count], False)
        return emit(node, operators.fill_cache, cache, partly["x"], own)
    if rows == count:
        return emit(node, operators.fill_cache, cache, values)
    own = (torch.arange(rows) < count)[None, None, :, None]
    return emit(node, operators.fill_cache, cache, values, literal(values, own, f"first_{count}_of_{rows}_rows"))


def _keep(graph: Graph, made: list[Node]) -> None:
    """Note which outputs are caches that the graph makes: those of `made`, and what is copied into zeros."""
    output = graph.output_node()
    values = [v.args[0] if is_call(v, operators.join) else v for v in output.args[0]]
    caches = {node for node in made if is_call(node, aten.constant_pad_nd.default)}
    caches |= {node for node in values if is_call(node, aten.copy.default) and _is_zeros(node.args[0])}
    known = meta.kept.get(output, [])
    meta.kept.set(output, [at for at, value in enumerate(values) if value in caches or at in known])
