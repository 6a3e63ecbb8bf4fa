"""Linear attention with heads narrower than tiles, as products of all heads at once.

Before   q, k, v = heads of x                                                   [1, heads, seq, head_dim]
         y = relu(q) @ (permute(relu(k)) @ pad(v, ones))
         z = merge_heads(y[..., :-1] / (y[..., -1:] + eps))
After    q, k, v = relu(x @ columns of q), relu(x @ columns of k), x @ columns of v         [1, seq, heads * head_dim]
         z = (q @ (permute(k) @ v * same_head)) / ((q * sum(k)) @ same_head + eps)

TTNN moves heads that fill no tiles element by element: EfficientViT's have 16 columns, those of a query, a key and a
value by turns. Matrices of ones and zeros pick their columns, `same_head` is one where row and column belong to one
head. A sum with weights of 0 is no pick: an infinity spreads as NaN. Products of all heads are as many times as large,
so that x may not be wide. Source: Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236
"""

from typing import NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.movement import cut_of, head_columns, is_move, merges_heads, source_of
from tt_dynamo.passes.rewrite import FLOATS, emit
from tt_dynamo.passes.rows import literal

WIDEST = 1024  # columns of x: what its picks multiply grows with their square


class _Attention(NamedTuple):
    """What a linear attention reads, and its number beside the sum of weights."""

    query: Node
    key: Node
    value: Node
    eps: float


def join_narrow_heads(graph: Graph, context: Context) -> int:
    """Rewrite every linear attention of narrow heads; returns how many."""
    count = sum(_rewrite(node, context) for node in graph.find_nodes(op="call_function", target=aten.div.Tensor))
    dead_code(graph)
    return count


def _read(quotient: Node) -> _Attention | None:
    part, weight = quotient.args[:2]
    if not is_call(part, aten.slice.Tensor) or not is_call(weight, aten.add.Tensor):
        return None
    (product, *_), (weight, eps, *_), width = part.args, weight.args, shape_of(part)[-1]
    if not is_call(product, aten.matmul.default) or len(product.users) != 2 or not isinstance(eps, (int, float)):
        return None
    if (cut_of(part, -1), cut_of(weight, -1)) != ((product, 0), (product, width)):
        return None
    query, state = product.args
    if not is_call(state, aten.matmul.default):
        return None
    key, value = state.args
    if not is_call(value, aten.constant_pad_nd.default) or shape_of(value)[-1] != width + 1:
        return None
    if [*value.args[1:]] != [[0, 1], 1] or not is_call(key, aten.permute.default) or key.args[1] != [0, 1, 3, 2]:
        return None
    if not is_call(query, aten.relu.default) or not is_call(key.args[0], aten.relu.default):
        return None
    return _Attention(query.args[0], key.args[0].args[0], value.args[0], float(eps))


def _merged(node: Node, context: Context) -> Node | None:
    """What holds the merged heads of a value that moves alone bring there."""
    move = only_user(node)
    while move is not None and is_move(move):
        if merges_heads(move, context):
            return move
        move = only_user(move)
    return None


def _rewrite(quotient: Node, context: Context) -> bool:
    found = _read(quotient) if len(shape_of(quotient)) == 4 and dtype_of(quotient) in FLOATS else None
    merged = _merged(quotient, context) if found is not None else None
    if found is None or merged is None:
        return False
    heads = (found.query, found.key, found.value)
    columns, sources = [head_columns(x, context) for x in heads], [source_of(x) for x in heads]
    x = sources[0]
    is_one = all(source is x for source in sources) and shape_of(quotient)[0] == 1
    if any(picked is None for picked in columns) or not is_one or dtype_of(x) != dtype_of(quotient):
        return False
    (_, count, seq, width), wide = shape_of(quotient), shape_of(x)[-1]
    if width % TILE == 0 or wide > WIDEST:
        return False
    with merged.graph.inserting_before(merged):
        rows = x if shape_of(x)[-2] == seq else emit(quotient, aten.reshape.default, x, [1, seq, wide])
        query, key, value = (
            emit(quotient, operators.linear, rows, _picks(quotient, picked, wide), None, activation)
            for picked, activation in zip(columns, ("relu", "relu", ""), strict=True)
        )
        same = torch.eye(count).repeat_interleave(shape_of(found.key)[-1], 0)
        same = literal(quotient, same.repeat_interleave(width, 1).to(dtype_of(x)))
        rank = len(shape_of(key))
        turned = emit(quotient, aten.permute.default, key, [*range(rank - 2), rank - 1, rank - 2])
        state = emit(quotient, aten.mul.Tensor, emit(quotient, aten.matmul.default, turned, value), same)
        total = emit(quotient, aten.sum.dim_IntList, key, [-2], True)
        eps = literal(quotient, torch.full((count * width,), found.eps, dtype=dtype_of(x)))
        weight = emit(quotient, operators.linear, emit(quotient, aten.mul.Tensor, query, total), same, eps)
        made = emit(quotient, aten.div.Tensor, emit(quotient, aten.matmul.default, query, state), weight)
        replace(merged, emit(quotient, aten.reshape.default, made, list(shape_of(merged))))
    return True


def _picks(like: Node, columns: torch.Tensor | None, wide: int) -> Node:
    """A matrix of ones and zeros whose product with [..., wide] is its columns [heads, head_dim], side by side."""
    assert columns is not None
    return literal(like, torch.eye(wide, dtype=dtype_of(like))[:, columns.flatten()])
