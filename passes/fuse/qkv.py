"""Fuse the query, key and value projections of one input into a single linear and a single split into heads.

Before   q = heads(linear(x, wq, bq))   k = heads(linear(x, wk, bk))   v = heads(linear(x, wv, bv))
After    qkv = linear(x, cat(wq, wk, wv), cat(bq, bk, bv));   q, k, v = split_heads(qkv)

Found where all three read the same value with constant weights, whoever reads the heads: attention itself, the norm or
the rotary embedding before it, a KV cache. Cross-attention reads two values and is left alone. One projection whose
columns hold all three in any order is regrouped the same way, on the weight. With a mask the scale moves into the
query's columns (or into the weight of the query's norm), because TTNN's attention launches one more kernel for a scaled
mask. What is left alone still gets its heads by the shortest way: slice, reshape, permute, with the batch first.
"""

from __future__ import annotations

import operator
from typing import NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import (
    Context,
    aten,
    constant_nodes,
    dead_code,
    insert,
    is_call,
    needed_for,
    only_user,
    replace,
    shape_of,
)
from tt_dynamo.passes.movement import MOVES, chain_of, head_columns, is_move, moves_behind, source_of
from tt_dynamo.passes.rows import literal

sdpa = aten.scaled_dot_product_attention.default
ROTARY = (operators.rotary, operators.rotary_by_matrix)
# What heads may pass on their way to attention, still query, key or value.
ON_THE_WAY = MOVES | {
    *ROTARY,
    operators.rms_norm,
    operators.update_cache,
    aten.layer_norm.default,
    aten.index_copy.default,
    aten.expand.default,
}


class _Projection(NamedTuple):
    """One of query, key, value: `columns` [heads, head_dim] of what `linear` gives, moved to `heads`."""

    linear: Node
    columns: torch.Tensor
    heads: Node


def fuse_qkv(graph: Graph, context: Context) -> int:
    """Fuse the projections of every self-attention; returns how many attentions."""
    constants = constant_nodes(graph)
    by_input: dict[Node, list[Node]] = {}
    for linear in graph.find_nodes(op="call_function", target=operators.linear):
        weights = [argument for argument in linear.args[1:3] if argument is not None]
        if len(linear.args) <= 3 and all(weight in constants for weight in weights):
            by_input.setdefault(linear.args[0], []).append(linear)
    fused = 0
    for linears in by_input.values():
        found = [_projections(linear, context) or [] for linear in linears]
        projections = _in_order([projection for part in found for projection in part])
        if projections:
            _fuse(graph, projections, constants)
            fused += 1
    for attention in graph.find_nodes(op="call_function", target=sdpa):
        fused += sum(_straighten(graph, operand, context) for operand in attention.args[:3])
    if fused:
        dead_code(graph)
    return fused


def _projections(linear: Node, context: Context) -> list[_Projection] | None:
    """The heads that moves of what `linear` gives make, where these are all that reads it."""

    ends: dict[Node, list[_Projection] | None] = {}  # of a value and its moves

    def of(user: Node) -> list[_Projection] | None:
        if ends.get(user) is not None:
            return ends[user]
        whole = is_move(user) and source_of(user) is linear
        columns = head_columns(user, context) if whole else None
        return None if columns is None else [_Projection(linear, columns, user)]

    for node in reversed(moves_behind(linear)):
        parts = [of(user) for user in node.users]
        ends[node] = None if None in parts else [projection for part in parts if part for projection in part]
    return ends[linear]


def _in_order(projections: list[_Projection]) -> list[_Projection] | None:
    """The three as query, key, value; None where they are not what one split gives.

    Where nothing tells which is which, as in a graph that only fills a cache, their order in the graph does.
    """
    if len({p.heads for p in projections}) != 3 or len(projections) != 3:
        return None
    batch, _, seq, head_dim = shape_of(projections[0].heads)
    if any((s[0], s[2], s[3]) != (batch, seq, head_dim) for s in (shape_of(p.heads) for p in projections)):
        return None
    ordered = sorted(projections, key=lambda p: (_role(p.heads), p.heads))
    for query in ordered:
        key, value = (p for p in ordered if p is not query)
        if len(key.columns) == len(value.columns):
            return [query, key, value]
    return None


def _role(heads: Node) -> int:
    """0, 1, 2 for what attention reads as query, key, value; 3 where no attention reads it."""
    seen, pending, role = {heads}, [heads], 3
    while pending:
        node = pending.pop()
        for user in node.users:
            if is_call(user, sdpa):
                role = min(role, *(i for i, operand in enumerate((*user.args[:3], node)) if operand is node))
            elif is_call(user, *ON_THE_WAY) and user not in seen:
                seen.add(user)
                pending.append(user)
    return role


def _straighten(graph: Graph, operand: Node, context: Context) -> bool:
    """Heads by slice, reshape and permute of their source, where a longer chain of moves makes them."""
    columns, source = head_columns(operand, context), source_of(operand)
    if columns is None or not _consecutive(columns.reshape(-1)):
        return False
    batch, heads, seq, head_dim = shape_of(operand)
    x, start, count, width = source, int(columns[0, 0]), heads * head_dim, shape_of(source)[-1]
    reshaped, sliced = shape_of(x) != (batch, seq, width), count != width
    if len(chain_of(operand)) <= 2 + reshaped + sliced:
        return False
    with graph.inserting_before(operand):
        if reshaped:
            x = insert(graph, aten.reshape.default, (x, [batch, seq, width]), like=operand)
        if sliced:
            x = insert(graph, aten.slice.Tensor, (x, 2, start, start + count), like=operand)
        x = insert(graph, aten.reshape.default, (x, [batch, seq, heads, head_dim]), like=operand)
        x = insert(graph, aten.permute.default, (x, [0, 2, 1, 3]), like=operand)
    replace(operand, x)
    return True


def _consecutive(columns: torch.Tensor) -> bool:
    start = int(columns[0])
    return torch.equal(columns, torch.arange(start, start + columns.numel(), dtype=columns.dtype))


def _fuse(graph: Graph, projections: list[_Projection], constants: set[Node]) -> None:
    first = min(p.linear for p in projections)
    for linear in {p.linear: None for p in projections}:
        for weight in linear.args[1:3]:
            _hoist(weight, first)
    scale = _take_scale(graph, projections[0].heads, constants)
    heads = [p.columns.shape[0] for p in projections]
    batch, _, seq, head_dim = shape_of(projections[0].heads)
    with graph.inserting_before(first):
        weight = _gather(graph, projections, 1, scale)
        biased = any(len(p.linear.args) > 2 and p.linear.args[2] is not None for p in projections)
        bias = _gather(graph, projections, 2, scale) if biased else None
        like = projections[0].heads
        qkv = insert(graph, operators.linear, (first.args[0], weight, bias), like=like)
        qkv = insert(graph, aten.reshape.default, (qkv, [batch, 1, seq, sum(heads) * head_dim]), like=like)
        split = insert(graph, operators.split_heads, (qkv, heads[0], heads[1]), like=like)
        parts = [insert(graph, operator.getitem, (split, index), like=like) for index in range(3)]
    for projection, part in zip(projections, parts, strict=True):
        replace(projection.heads, part)


def _hoist(constant: Node | None, before: Node) -> None:
    """Compute a constant before that node, and first what it is made of."""
    if constant is not None and not constant < before:
        for node in needed_for(constant, lambda n: n < before):
            before.prepend(node)


def _take_scale(graph: Graph, query: Node, constants: set[Node]) -> float | None:
    """What the query's columns are to be multiplied by, taken from the masked attention that alone reads it, or None.

    The rotary embedding between them is linear; a norm undoes any scale before it, so that its weight takes the scale.
    """
    node = query
    norm: Node | None = None
    while (user := only_user(node)) is not None and user.args[0] is node and user.args.count(node) == 1:
        if is_call(user, sdpa):
            break
        if is_call(user, operators.rms_norm) and user.args[1] in constants:
            norm = user
        elif not is_call(user, *ROTARY):
            return None
        node = user
    else:
        return None
    mask, scale = (user.args[3] if len(user.args) > 3 else None), user.kwargs.get("scale")
    scale = shape_of(query)[-1] ** -0.5 if scale is None else scale
    if mask is None or scale == 1.0 or _is_cache(user.args[1]):
        return None
    user.kwargs = {**user.kwargs, "scale": 1.0}
    if norm is None:
        return scale
    with graph.inserting_before(norm):
        norm.update_arg(1, insert(graph, aten.mul.Tensor, (norm.args[1], scale), like=norm))
    return None


def _is_cache(keys: Node) -> bool:
    """Whether a model's other graphs attend to these keys as well: they share one weight only where none is scaled."""
    return is_call(keys, *operators.CACHE_WRITES, aten.constant_pad_nd.default)


def _gather(graph: Graph, projections: list[_Projection], argument: int, query_scale: float | None) -> Node:
    """The weight (argument 1) or bias (2) of the merged projection, columns in the order query, key, value."""
    parts = []
    for index, (linear, columns, _) in enumerate(projections):
        source = linear.args[argument] if len(linear.args) > argument else None
        if source is None:
            like = linear.args[1]
            dtype = like.meta["val"].dtype
            part = insert(graph, aten.zeros.default, ([columns.numel()],), {"dtype": dtype}, like=linear)
        else:
            part = _columns(graph, source, columns.reshape(-1), linear)
        if index == 0 and query_scale is not None:
            part = insert(graph, aten.mul.Tensor, (part, query_scale), like=linear)
        parts.append(part)
    return insert(graph, aten.cat.default, (parts, -1), like=projections[0].linear)


def _columns(graph: Graph, source: Node, columns: torch.Tensor, like: Node) -> Node:
    """`source` with these columns of its last dimension, by slicing where they are consecutive."""
    start, count = int(columns[0]), columns.numel()
    if _consecutive(columns):
        if count == shape_of(source)[-1]:
            return source
        return insert(graph, aten.slice.Tensor, (source, -1, start, start + count), like=like)
    return insert(graph, aten.index_select.default, (source, -1, literal(source, columns.to(torch.int64))), like=like)
