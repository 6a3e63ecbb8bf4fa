"""Attention among channels takes its heads as the kernel that splits them gives them.

Before   q, k, v = split(permute(linear(x, w)))                                   each [batch, heads, head_dim, tokens]
         y = permute(matmul(softmax(norm(q) @ norm(k).T), v), [0, 3, 1, 2])
After    q, k, v = heads(linear(x, w))                                            each [batch, heads, tokens, head_dim]
         y = permute(matmul(v, softmax(norm(q.T) @ norm(k.T).T).T), [0, 2, 1, 3])

Queries and keys are transposed for their norm, values are not: the weights transpose where the product reads them.

XCiT, EdgeNeXt; Source: El-Nouby et al. 2021, https://arxiv.org/abs/2106.09681
"""

import operator

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, only_user, replace, shape_of
from tt_dynamo.passes.attention.attention import PRODUCTS, SOFTMAXES
from tt_dynamo.passes.fuse.linears import has_own_weights, take_columns
from tt_dynamo.passes.movement import head_columns, is_move, moves_behind, source_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import emit

TRANSPOSED = [0, 1, 3, 2]


def fuse_cross_covariance(graph: Graph, context: Context) -> int:
    """Have every attention among channels read heads of tokens; returns how many."""
    fused = sum(_fuse(node, context) for node in list(graph.nodes) if is_call(node, *PRODUCTS) and node.users)
    dead_code(graph)
    if fused:
        canonicalize(graph, context)  # permutes that meet
    return fused


def _fuse(node: Node, context: Context) -> bool:
    weights, value = node.args
    source = source_of(value)
    is_weighted = is_call(weights, *SOFTMAXES) and only_user(weights) is node and weights.args[1] in (-1, 3)
    if not is_weighted or source is value or not has_own_weights(source):
        return False
    if not len(shape_of(weights)) == len(shape_of(value)) == 4:
        return False
    ends = [x for x in moves_behind(source) if any(not is_move(user) for user in x.users)]
    with node.graph.inserting_before(node):
        found = [_columns(x, context) for x in ends]
    columns = [each for each in found if each is not None]
    if value not in ends or len({shape_of(x) for x in ends}) > 1 or not len(ends) == len(columns) == 3:
        return False
    for x, heads in zip(ends, _split(source, torch.cat(columns), ends[0]), strict=True):
        with x.graph.inserting_before(x):
            replace(x, emit(x, aten.permute.default, heads, TRANSPOSED))
    with node.graph.inserting_before(node):
        turned = [emit(node, aten.permute.default, x, TRANSPOSED) for x in (node.args[1], weights)]
        replace(node, emit(node, aten.permute.default, emit(node, aten.matmul.default, *turned), TRANSPOSED))
    return True


def _columns(x: Node, context: Context) -> torch.Tensor | None:
    """Columns [heads, head_dim] of which x is the transposed heads, or None."""
    return head_columns(emit(x, aten.permute.default, x, TRANSPOSED), context) if len(shape_of(x)) == 4 else None


def _split(linear: Node, columns: torch.Tensor, like: Node) -> list[Node]:
    """Heads of the columns of a linear, by one kernel for all three.

    columns: [3 heads, head_dim]
    """
    batch, heads, _, tokens = shape_of(like)
    with linear.graph.inserting_before(linear):
        qkv = emit(linear, operators.linear, linear.args[0], *take_columns(linear, columns.reshape(-1)))
        qkv = emit(like, aten.reshape.default, qkv, [batch, 1, tokens, columns.numel()])
        split = emit(like, operators.split_heads, qkv, heads, heads)
        return [emit(like, operator.getitem, split, index) for index in range(3)]
