"""Chains of data movement, understood by what they do to the positions of elements.

A chain of views, permutes, selects, slices and splits from a source to a value is run once on the numbers 0 … n-1:
where each number ends up says everything about it, whatever idiom wrote it. Equal chains are run once per compile.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import Node

from tt_dynamo.ir.graph import Context, aten, is_call, needed_for, shape_of

VIEWS = (aten.view.default, aten.reshape.default, aten.permute.default, aten.select.int, aten.slice.Tensor)
SPLITS = (aten.unbind.int, aten.split.Tensor, aten.split_with_sizes.default, operator.getitem)
MOVES = frozenset((*VIEWS, *SPLITS, aten.clone.default))

# Index maps of larger tensors are not worth their memory: batches of images share one image's chain anyway.
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


def numbered(shape: tuple[int, ...], dtype: torch.dtype = torch.int32) -> torch.Tensor:
    """The numbers 0 … n-1 in that shape."""
    return torch.arange(torch.Size(shape).numel(), dtype=dtype).view(shape)


def run(node: Node, known: Mapping[Node, torch.Tensor]) -> Any:
    """What `node` gives where values that it is computed from are `known`.

    Of the numbers of a source's elements, moves give the one that each element has there.
    """
    values: dict[Node, Any] = dict(known)
    for needed in [] if node in values else needed_for(node, values.__contains__):
        args, kwargs = torch.fx.node.map_arg((needed.args, needed.kwargs), values.__getitem__)
        values[needed] = needed.target(*args, **kwargs)  # type: ignore[operator]
    return values[node]


def _once(context: Context, key: Any, compute: Callable[[], Any]) -> Any:
    if key not in context.memory:
        context.memory[key] = compute()
    return context.memory[key]


def positions(node: Node, context: Context) -> torch.Tensor | None:
    """For each element of `node`, its position in the flattened source; None where the source is too large."""
    source = source_of(node)
    shape = shape_of(source)
    if torch.Size(shape).numel() > LIMIT:
        return None
    key = ("positions", shape, tuple((n.target, str(n.args[1:]), str(n.kwargs)) for n in chain_of(node)))
    return _once(context, key, lambda: run(node, {source: numbered(shape)}))


def head_columns(node: Node, context: Context) -> torch.Tensor | None:
    """Columns of the source that make up the heads of `node`.

    node: [batch, heads, seq, head_dim], moved from a source of [batch, seq, width]. Returns [heads, head_dim] so that
    node[b, h, s, d] is source[b, s, columns[h, d]]; None where the chain is anything else.
    """
    source = source_of(node)
    if source is node or len(shape_of(node)) != 4 or not shape_of(source):
        return None
    batch, _, seq, _ = shape_of(node)
    width, where = shape_of(source)[-1], positions(node, context)
    if where is None or torch.Size(shape_of(source)).numel() != batch * seq * width or batch * seq == 0:
        return None

    def columns() -> torch.Tensor | None:
        first = where[0, :, 0, :]
        rows = numbered((batch, 1, seq, 1)) * width
        fits = int(first.max()) < width and torch.equal(where, rows + first[None, :, None, :])
        return first.clone() if fits else None

    return _once(context, ("heads", id(where), width), columns)


def merges_heads(node: Node, context: Context) -> bool:
    """Whether `node` is its source [batch, heads, seq, head_dim] in the element order [batch, seq, heads, head_dim]."""
    source = source_of(node)
    if not isinstance(node.meta["val"], torch.Tensor) or source is node:
        return False  # several parts, or nothing that moved
    shape, where = shape_of(source), positions(node, context)
    if len(shape) != 4 or where is None or where.numel() != torch.Size(shape).numel():
        return False
    elements = where.reshape(-1)
    key = ("merge", id(where), shape)
    return _once(context, key, lambda: torch.equal(elements, numbered(shape).permute(0, 2, 1, 3).reshape(-1)))
