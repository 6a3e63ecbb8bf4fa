"""Linear attention with heads narrower than tiles, as products of all heads at once.

Before   q, k, v = heads of x                                                   [1, heads, seq, head_dim]
         z = merge_heads(linear_attention(relu(q), relu(k), v, eps))
After    q, k, v = relu(x @ columns of q), relu(x @ columns of k), x @ columns of v         [1, seq, heads * head_dim]
         z = (q @ (permute(k) @ v * same_head)) / ((q * sum(k)) @ same_head + eps)

TTNN moves heads that fill no tiles element by element: EfficientViT's have 16 columns, those of a query, a key and a
value by turns. Matrices of ones and zeros pick their columns, `same_head` is one where row and column belong to one
head. x is to be finite: an infinity in one column becomes NaN in all. Products of all heads are as many times as large,
so that x may not be wide. Source: Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236
"""

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.attention.heads import merged_at
from tt_dynamo.passes.movement import head_columns, source_of, transposing
from tt_dynamo.passes.rewrite import FLOATS, emit
from tt_dynamo.passes.rows import literal

WIDEST = 1024  # columns of x: what its picks multiply grows with their square


def join_narrow_heads(graph: Graph, context: Context) -> int:
    """Rewrite every linear attention of narrow heads; returns how many."""
    attentions = graph.find_nodes(op="call_function", target=operators.linear_attention)
    count = sum(_rewrite(node, context) for node in attentions)
    dead_code(graph)
    return count


def _rewrite(attention: Node, context: Context) -> bool:
    query, key, value, eps = attention.args
    if len(shape_of(attention)) != 4 or not (is_call(query, aten.relu.default) and is_call(key, aten.relu.default)):
        return False
    heads, merged = (query.args[0], key.args[0], value), merged_at(attention, context)
    if merged is None or dtype_of(attention) not in FLOATS:
        return False
    columns, sources = [head_columns(x, context) for x in heads], [source_of(x) for x in heads]
    x = sources[0]
    is_one = all(source is x for source in sources) and shape_of(attention)[0] == 1
    if any(picked is None for picked in columns) or not is_one or dtype_of(x) != dtype_of(attention):
        return False
    (_, count, seq, width), wide = shape_of(attention), shape_of(x)[-1]
    if width % TILE == 0 or wide > WIDEST:
        return False
    with merged.graph.inserting_before(merged):
        rows = x if shape_of(x)[-2] == seq else emit(attention, aten.reshape.default, x, [1, seq, wide])
        query, key, value = (
            emit(attention, operators.linear, rows, _picks(attention, picked, wide), None, activation)
            for picked, activation in zip(columns, ("relu", "relu", ""), strict=True)
        )
        same = torch.eye(count).repeat_interleave(shape_of(heads[1])[-1], 0)
        same = literal(attention, same.repeat_interleave(width, 1).to(dtype_of(x)))
        turned = emit(attention, aten.permute.default, key, transposing(len(shape_of(key))))
        state = emit(attention, aten.mul.Tensor, emit(attention, aten.matmul.default, turned, value), same)
        total = emit(attention, aten.sum.dim_IntList, key, [-2], True)
        eps = literal(attention, torch.full((count * width,), eps, dtype=dtype_of(x)))
        weight = emit(attention, operators.linear, emit(attention, aten.mul.Tensor, query, total), same, eps)
        made = emit(attention, aten.div.Tensor, emit(attention, aten.matmul.default, query, state), weight)
        replace(merged, emit(attention, aten.reshape.default, made, list(shape_of(merged))))
    return True


def _picks(like: Node, columns: torch.Tensor | None, wide: int) -> Node:
    """A matrix of ones and zeros whose product with [..., wide] is its columns [heads, head_dim], side by side."""
    assert columns is not None
    return literal(like, torch.eye(wide, dtype=dtype_of(like))[:, columns.flatten()])
