"""Fuse the query, key and value projections of one input into a single linear and a single split into heads.

Before   q = heads(linear(x, wq, bq))   k = heads(linear(x, wk, bk))   v = heads(linear(x, wv, bv))
After    qkv = linear(x, cat(wq, wk, wv), cat(bq, bk, bv));   q, k, v = split_heads(qkv)

Only where all three read the same value with constant weights: cross-attention reads two and is left alone. One
projection whose columns hold all three in any order is regrouped the same way, on the weight. With a mask the scale
moves into the query's columns, because TTNN's attention launches one more kernel for a scaled mask. What is left alone
still gets its heads by the shortest way: slice, reshape, permute, with the batch first.
"""

from __future__ import annotations

import operator
from typing import NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo import operators
from tt_dynamo.graph import Context, aten, constant_nodes, dead_code, insert, is_call, replace, shape_of
from tt_dynamo.passes.movement import chain_of, head_columns, is_move, source_of


class _Projection(NamedTuple):
    """One of query, key, value: `columns` [heads, head_dim] of what `linear` gives."""

    linear: Node
    columns: torch.Tensor


def fuse_qkv(graph: Graph, context: Context) -> int:
    """Fuse the projections of every self-attention; returns how many attentions."""
    constants = constant_nodes(graph)
    fused = 0
    for attention in graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default):
        found = [_projection(operand, context) for operand in attention.args[:3]]
        projections = [projection for projection in found if projection is not None]
        if len(projections) == 3 and _fits(attention, projections, constants):
            _fuse(graph, attention, projections)
            fused += 1
        else:
            fused += sum(_straighten(graph, operand, context) for operand in attention.args[:3])
    if fused:
        dead_code(graph)
    return fused


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


def _projection(operand: Node, context: Context) -> _Projection | None:
    columns = head_columns(operand, context)
    linear = source_of(operand)
    if columns is None or not is_call(linear, operators.linear):
        return None
    return _Projection(linear, columns)


def _fits(attention: Node, projections: list[_Projection], constants: set[Node]) -> bool:
    if any(list(operand.users) != [attention] for operand in attention.args[:3]):
        return False
    if len(set(attention.args[:3])) != 3:
        return False  # what is query and key at once would take the query's scale into the key
    linears = {p.linear for p in projections}
    if len({linear.args[0] for linear in linears}) != 1:
        return False
    if len({shape_of(operand)[2] for operand in attention.args[:3]}) != 1:
        return False
    for linear in linears:
        weights = [argument for argument in linear.args[1:3] if argument is not None]
        if len(linear.args) > 3 or any(weight not in constants for weight in weights):
            return False
        if not all(_reaches_only(user, attention.args[:3]) for user in linear.users):
            return False
    return True


def _reaches_only(node: Node, ends: tuple[Node, ...]) -> bool:
    """Whether the chain of moves through `node` serves the attention's operands and nothing else."""
    return node in ends or (is_move(node) and all(_reaches_only(user, ends) for user in node.users))


def _fuse(graph: Graph, attention: Node, projections: list[_Projection]) -> None:
    operands = list(attention.args[:3])
    mask, scale = attention.args[3] if len(attention.args) > 3 else None, attention.kwargs.get("scale")
    last = max(p.linear for p in projections)  # by then all weights are there
    heads = [p.columns.shape[0] for p in projections]
    batch, _, seq, head_dim = shape_of(operands[0])
    scale = head_dim**-0.5 if scale is None else scale
    folded = mask is not None and scale != 1.0
    with graph.inserting_before(last):
        weight = _gather(graph, projections, 1, scale if folded else None)
        biased = any(len(p.linear.args) > 2 and p.linear.args[2] is not None for p in projections)
        bias = _gather(graph, projections, 2, scale if folded else None) if biased else None
        x = last.args[0]
        qkv = insert(graph, operators.linear, (x, weight, bias), like=attention)
        qkv = insert(graph, aten.reshape.default, (qkv, [batch, 1, seq, sum(heads) * head_dim]), like=attention)
        split = insert(graph, operators.split_heads, (qkv, heads[0], heads[1]), like=attention)
        parts = [insert(graph, operator.getitem, (split, index), like=attention) for index in range(3)]
    for operand, part in zip(operands, parts, strict=True):
        replace(operand, part)
    if folded:
        attention.kwargs = {**attention.kwargs, "scale": 1.0}


def _gather(graph: Graph, projections: list[_Projection], argument: int, query_scale: float | None) -> Node:
    """The weight (argument 1) or bias (2) of the merged projection, columns in the order query, key, value."""
    parts = []
    for index, (linear, columns) in enumerate(projections):
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
    if parts[0] is parts[1] is parts[2]:
        return parts[0]
    return insert(graph, aten.cat.default, (parts, -1), like=projections[0].linear)


def _columns(graph: Graph, source: Node, columns: torch.Tensor, like: Node) -> Node:
    """`source` with these columns of its last dimension, by slicing where they are consecutive."""
    start, count = int(columns[0]), columns.numel()
    if _consecutive(columns):
        if count == shape_of(source)[-1]:
            return source
        return insert(graph, aten.slice.Tensor, (source, -1, start, start + count), like=like)
    return insert(graph, aten.index_select.default, (source, -1, _literal(graph, columns, like)), like=like)


def _literal(graph: Graph, value: torch.Tensor, like: Node) -> Node:
    """The numbers of `value` as a node: a buffer of the graph's module."""
    root = graph.owning_module
    name = f"columns_{sum(n.startswith('columns_') for n, _ in root.named_buffers())}"
    root.register_buffer(name, value.to(torch.int64))
    node = graph.get_attr(name)
    mode = like.meta["val"].fake_mode
    node.meta["val"] = mode.from_tensor(value.to(torch.int64))
    return node
