"""Chains of data movement, understood by what they do to the positions of elements.

A chain of views, permutes, selects, slices and splits from a source to a value is run once on the numbers 0 … n-1:
where each number ends up says everything about it, whatever idiom wrote it. Equal chains are run once per compile.
Elements that all moves keep together, as those of a head, share one number, so that a long prompt or many users cost
little.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.fx import Node

from tt_dynamo.ir.graph import Context, aten, is_call, needed_for, shape_of, values_of
from tt_dynamo.ir.spec import TILE

VIEWS = (aten.view.default, aten.reshape.default, aten.permute.default, aten.select.int, aten.slice.Tensor)
SPLITS = (aten.unbind.int, aten.split.Tensor, aten.split_with_sizes.default, operator.getitem)
SPLITS_BY_SIZE = SPLITS[1:3]
MOVES = frozenset((*VIEWS, *SPLITS, aten.clone.default))
# Which argument is the dimension of those that work along one.
BY_DIM = {
    **dict.fromkeys((aten.select.int, aten.slice.Tensor, aten.unbind.int, aten.index_select.default), 1),
    **dict.fromkeys((aten.split.Tensor, aten.split_with_sizes.default), 2),
}

# More numbers than that are not worth their memory: batches of images share one image's chain anyway.
LIMIT = 1 << 25
LONGEST = 32  # moves: whatever a model spells with more is read as that many and a value before them


def is_move(node: Any) -> bool:
    """Whether a node only moves elements; picking from a tuple counts where the tuple was split from one tensor."""
    if not is_call(node, *MOVES):
        return False
    return node.target is not operator.getitem or is_move(node.args[0])


def moves_leading(node: Node) -> bool:
    """Whether a node moves leading dimensions only: every row along the last one stays whole."""
    if is_call(node, aten.reshape.default):
        before, after = shape_of(node.args[0]), shape_of(node)
        return min(len(before), len(after)) >= 2 and before[-1] == after[-1]
    return is_call(node, aten.permute.default) and node.args[1][-1] == len(node.args[1]) - 1


def chain_of(node: Node) -> list[Node]:
    """The moves that end in `node`, last one first, at most LONGEST; none where `node` gives several values."""
    chain: list[Node] = []
    if not isinstance(node.meta.get("val"), torch.Tensor):
        return chain
    while is_move(node) and (len(chain) < LONGEST or is_call(chain[-1], operator.getitem)):
        chain.append(node)
        node = node.args[0]
    return chain


def moves_behind(node: Node) -> list[Node]:
    """The node, and all that moves alone make of it, each behind what it moves."""
    found = [node]
    for move in found:
        found += [user for user in move.users if is_move(user)]
    return found


def source_of(node: Node) -> Node:
    """The value at the head of the chain of moves that ends in `node`; `node` itself where there is none."""
    chain = chain_of(node)
    return chain[-1].args[0] if chain else node


def cut_of(node: Node, dim: int) -> tuple[Node, int] | None:
    """What `node` is a part of along a dimension, counted from the end, and where in it the part begins, or None."""
    split = node.args[0] if is_call(node, operator.getitem) else node
    if not is_call(split, aten.slice.Tensor, *SPLITS_BY_SIZE) or dim_of(split) != len(shape_of(split.args[0])) + dim:
        return None
    if split is node:
        return (node.args[0], start_of(node)) if (*node.args[4:5], 1)[0] == 1 else None
    sizes = [part.shape[dim] for part in values_of(split)]
    return split.args[0], sum(sizes[: node.args[1]])


def joined_along(join: Node) -> int:
    """The dimension, counted from the end, along which a `cat` joins."""
    rank = len(shape_of(join))
    return int((*join.args[1:2], join.kwargs.get("dim", 0))[0] % rank - rank)


def part_of_join(join: Node, start: int, stop: int) -> Node | None:
    """The part that a `cat` has from start to stop; None where these are the ends of no one part."""
    dim, at = joined_along(join), 0
    for part in join.args[0]:
        if (at, at + shape_of(part)[dim]) == (start, stop):
            return part
        at += shape_of(part)[dim]
    return None


def is_permute(node: Any, order: Sequence[int]) -> bool:
    """Whether a node permutes dimensions into this order."""
    return is_call(node, aten.permute.default) and [dim % len(order) for dim in node.args[1]] == [*order]


def transposing(rank: int) -> list[int]:
    """The order that exchanges the last two of so many dimensions."""
    return [*range(rank - 2), rank - 1, rank - 2]


def numbered(shape: tuple[int, ...], dtype: torch.dtype = torch.int32) -> torch.Tensor:
    """The numbers 0 … n-1 in that shape."""
    return torch.arange(torch.Size(shape).numel(), dtype=dtype).view(shape)


def numbered_memory(value: torch.Tensor, extent: int) -> torch.Tensor:
    """So many places of memory, in each the number of an element of `value` that lies there, or -1."""
    memory = torch.full((extent,), -1)
    memory.as_strided(value.shape, value.stride()).copy_(numbered(value.shape))
    return memory


def run(node: Node, known: Mapping[Node, torch.Tensor]) -> Any:
    """What `node` gives where values that it is computed from are `known`.

    Of the numbers of a source's elements, moves give the one that each element has there.
    """
    values: dict[Node, Any] = dict(known)
    for needed in [] if node in values else needed_for(node, values.__contains__):
        args, kwargs = torch.fx.node.map_arg((needed.args, needed.kwargs), values.__getitem__)
        values[needed] = needed.target(*args, **kwargs)  # type: ignore[operator]
    return values[node]


def grain_of(chain: Iterable[Node]) -> int:
    """How many consecutive elements along the last dimension each of these moves, or repeats, keeps together."""
    grain = 0
    for node in chain:
        if node.target is operator.getitem:
            continue  # what it picks was counted where it was split off
        x, *rest = node.args
        last = len(shape_of(x)) - 1
        grain = math.gcd(grain, *(value.shape[-1] if value.dim() else 1 for value in (x.meta["val"], *values_of(node))))
        if node.target is aten.permute.default and rest[0][-1] % max(last + 1, 1) != last:
            return 1
        if node.target in (aten.select.int, aten.unbind.int) and dim_of(node) == last:
            return 1
        if node.target is aten.slice.Tensor and dim_of(node) == last:
            grain = math.gcd(grain, 1 if len(rest) > 3 and rest[3] != 1 else start_of(node))
    return max(grain, 1)


def run_by_grains(chain: list[Node], grain: int) -> torch.Tensor:
    """The number of each grain of what a chain of moves and repeats, last one first, makes of a source, in that one."""
    source = chain[-1].args[0]
    value: Any = numbered(_in_grains(shape_of(source), grain))
    for move in reversed(chain):
        x, *rest = move.args
        on_last = grain > 1 and move.target in BY_DIM and dim_of(move) == len(shape_of(x)) - 1
        if move.target in (aten.view.default, aten.reshape.default, aten.expand.default):
            rest = [_in_grains(shape_of(move), grain)]
        elif move.target is aten.slice.Tensor and on_last:
            start = start_of(move) // grain
            rest = [rest[0], start, start + shape_of(move)[-1] // grain]
        elif on_last:
            sizes = rest[0]
            rest = [sizes // grain if isinstance(sizes, int) else [size // grain for size in sizes], *rest[1:]]
        value = move.target(value, *rest, **move.kwargs)  # type: ignore[operator]
    return value


def _in_grains(shape: tuple[int, ...], grain: int) -> tuple[int, ...]:
    return (*shape[:-1], shape[-1] // grain) if shape else shape


def keeps_rows(reshape: Node) -> bool:
    """Whether a reshape leaves all rows as they are, and has them in other dimensions."""
    before, after = shape_of(reshape.args[0]), shape_of(reshape)
    return min(len(before), len(after)) > 1 and before[-1] == after[-1] and before != after


def moves_rows(reshape: Node) -> bool:
    """Whether a reshape that keeps rows puts them into other tiles."""
    high = {shape_of(reshape.args[0])[-2], shape_of(reshape)[-2]}
    return len(high) > 1 and any(size % TILE for size in high)


def dim_of(node: Node) -> int:
    """The dimension, from 0, that a select, slice or split works along."""
    at = BY_DIM[node.target]
    dim = node.args[at] if len(node.args) > at else node.kwargs.get("dim", 0)
    return dim % max(len(shape_of(node.args[0])), 1)


def start_of(node: Node) -> int:
    """The first element along its dimension that a slice or a select reads."""
    if is_call(node, aten.select.int):
        return node.args[2] % shape_of(node.args[0])[dim_of(node)]
    start, size = (*node.args[2:3], 0)[0] or 0, shape_of(node.args[0])[dim_of(node)]
    return min(start, size) if start >= 0 else max(start + size, 0)


def _once(context: Context, key: Any, compute: Callable[[], Any]) -> Any:
    if key not in context.memory:
        context.memory[key] = compute()
    return context.memory[key]


def positions(node: Node, context: Context) -> tuple[int, torch.Tensor] | None:
    """A grain, and for each grain of `node` its number in the source; None where the source has too many of them."""
    chain = chain_of(node)
    if not chain:
        return 1, numbered(shape_of(node))
    grain, shape = grain_of(chain), shape_of(chain[-1].args[0])
    if math.prod(shape) // grain > LIMIT:
        return None
    key = ("positions", shape, tuple((n.target, str(n.args[1:]), str(n.kwargs)) for n in chain))
    return _once(context, key, lambda: (grain, run_by_grains(chain, grain)))


def head_columns(node: Node, context: Context) -> torch.Tensor | None:
    """Columns of the source that make up the heads of `node`.

    node: [batch, heads, seq, head_dim], moved from a source of [batch, seq, width]. Returns [heads, head_dim] so that
    node[b, h, s, d] is source[b, s, columns[h, d]]; None where the chain is anything else.
    """
    source = source_of(node)
    if source is node or len(shape_of(node)) != 4 or not shape_of(source):
        return None
    batch, _, seq, _ = shape_of(node)
    width, found = shape_of(source)[-1], positions(node, context)
    if found is None or math.prod(shape_of(source)) != batch * seq * width or batch * seq == 0:
        return None
    grain, where = found

    def columns() -> torch.Tensor | None:
        first = where[0, :, 0, :]
        rows = numbered((batch, 1, seq, 1)) * (width // grain)
        fits = int(first.max()) < width // grain and torch.equal(where, rows + first[None, :, None, :])
        return (first[..., None] * grain + numbered((grain,))).flatten(1) if fits else None

    return _once(context, ("heads", id(where), width), columns)


def merges_heads(node: Node, context: Context) -> bool:
    """Whether `node` is its source [batch, heads, seq, head_dim] in the element order [batch, seq, heads, head_dim]."""
    source = source_of(node)
    if not isinstance(node.meta["val"], torch.Tensor) or source is node:
        return False  # several parts, or nothing that moved
    shape, found = shape_of(source), positions(node, context)
    if len(shape) != 4 or found is None or node.meta["val"].numel() != math.prod(shape):
        return False
    grain, where = found
    key = ("merge", id(where), shape)
    merged = numbered(_in_grains(shape, grain)).permute(0, 2, 1, 3)
    return _once(context, key, lambda: torch.equal(where.reshape(-1), merged.reshape(-1)))
