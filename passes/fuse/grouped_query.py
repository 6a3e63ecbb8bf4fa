"""Let attention read keys and values once for all heads of queries that share them.

Before   k, v = [reshape(expand(reshape(x, [b, h, 1, s, d]), [b, h, n, s, d]), [b, h * n, s, d]) for x in (k, v)]
         scaled_dot_product_attention(q, k, v)
After    scaled_dot_product_attention(q, k, v, enable_gqa=True)

Whatever moves of data repeat the heads, also before the rotary embedding turns them: TTNN's attention takes fewer heads
of keys and values, each for as many consecutive ones of queries. Keys and values must be repeated alike.
"""

from __future__ import annotations

import itertools

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, insert, is_call, shape_of
from tt_dynamo.passes.movement import LIMIT, is_move

sdpa = aten.scaled_dot_product_attention.default
REPEATS = (aten.expand.default, aten.repeat.default)


def fuse_grouped_query(graph: Graph, context: Context) -> int:
    """Strip the repeats of every attention's keys and values; returns of how many attentions."""
    fused = 0
    for attention in list(graph.nodes):
        if is_call(attention, sdpa, operators.capped_attention) and _strip(graph, attention):
            fused += 1
    if fused:
        dead_code(graph)
    return fused


def _strip(graph: Graph, attention: Node) -> bool:
    key, value = attention.args[1:3]
    for times in _times(key):
        with graph.inserting_before(attention):
            stripped = [_stripped(graph, x, times) for x in (key, value)]
        if None not in stripped:
            attention.args = (attention.args[0], *stripped, *attention.args[3:])
            if attention.target is sdpa:
                attention.kwargs = {**attention.kwargs, "enable_gqa": True}
            return True
    return False


def _times(key: Node) -> list[int]:
    """How often each head may stand in a row, most often first."""
    heads = shape_of(key)[1]
    return [times for times in range(heads, 1, -1) if heads % times == 0]


def _stripped(graph: Graph, x: Node, times: int) -> Node | None:
    """y where x [batch, heads, seq, head_dim] is y [batch, heads / times, seq, head_dim] with every head repeated."""
    turns = []
    while is_call(x, operators.rotary) and all(shape_of(table)[1] == 1 for table in x.args[1:]):
        turns.append(x)
        x = x.args[0]
    y = _unrepeated(graph, x, times)
    for turn in reversed(turns):
        y = y and insert(graph, operators.rotary, (y, *turn.args[1:]), like=turn)
    return y


def _unrepeated(graph: Graph, x: Node, times: int) -> Node | None:
    chain: list[Node] = []
    node = x
    while is_move(node) or is_call(node, *REPEATS):
        if not isinstance(node.meta.get("val"), torch.Tensor) or torch.Size(shape_of(node)).numel() > LIMIT:
            return None
        chain.append(node)
        if is_call(node, *REPEATS):
            return _before(graph, x, chain, times)
        node = node.args[0]
    return None


def _before(graph: Graph, x: Node, chain: list[Node], times: int) -> Node | None:
    """The repeated value itself as [batch, heads / times, seq, head_dim], if the chain only repeats its heads."""
    source = chain[-1].args[0]
    batch, heads, seq, head_dim = shape_of(x)
    shape = (batch, heads // times, seq, head_dim)
    numbers = torch.arange(torch.Size(shape_of(source)).numel(), dtype=torch.int32).view(shape_of(source))
    if numbers.numel() != torch.Size(shape).numel():
        return None
    where = numbers
    for move in reversed(chain):
        where = move.target(where, *move.args[1:], **move.kwargs)
    wanted = where[:, ::times]
    if not torch.equal(where, wanted.repeat_interleave(times, 1)):
        return None
    for order in itertools.permutations(range(len(shape_of(source)))):
        kept = [d for d in order if shape_of(source)[d] != 1]
        if [shape_of(source)[d] for d in kept] != [size for size in shape if size != 1]:
            continue
        if torch.equal(numbers.permute(order).reshape(shape), wanted):
            y = source
            if list(order) != sorted(order):
                y = insert(graph, aten.permute.default, (y, list(order)), like=x)
            if is_call(y, aten.reshape.default) and shape_of(y) != shape:
                y = y.args[0]
            return y if shape_of(y) == shape else _reshaped(graph, y, shape, x)
    return None


def _reshaped(graph: Graph, y: Node, shape: tuple[int, ...], x: Node) -> Node:
    """y in that shape: as it is there already for a cache, or for the attention of later tokens, where it is."""
    for user in y.users:
        if is_call(user, aten.reshape.default) and shape_of(user) == shape and user < x:
            return user
    return insert(graph, aten.reshape.default, (y, list(shape)), like=x)
