"""Attention whose heads are mixed before and after the softmax becomes attention of wide heads with one key.

Before   scores  = einsum("bhnm,ho->bonm", q @ k.T, before) + a
         weights = einsum("bhnm,ho->bonm", softmax(scores), after) + b
         y       = linear(merge_heads(weights @ v), w, bias)                 q, k, v [batch, heads, n, d]
After    q = merge_heads(q) * expand(before)                                 q [batch, heads, n, heads d]
         y = linear(merge_heads(attention(q, merge_heads(k), merge_heads(v))), expand(after) * w, bias)

A head's mixed scores are the product of all channels, each head's scaled; what a head gives is mixed as well where the
projection behind it reads it. Mixing scores themselves moves all of them, with as many heads as there are in the last
dimension, where TTNN has tiles of 32. `a` is the same for all keys, which the softmax undoes. `b` adds a sum of all
values, which one more head gives whose scores are 0.

CaiT, EfficientFormer-V2; Source: Shazeer et al. 2020, https://arxiv.org/abs/2003.02436
"""

from typing import NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.passes.attention.attention import PRODUCTS, SOFTMAXES, Scores, read_scores, split_scale, transposed
from tt_dynamo.passes.fuse.linears import has_own_weights, take
from tt_dynamo.passes.movement import head_columns, source_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import call, emit, is_constant, once, variable
from tt_dynamo.passes.rows import literal

sdpa = aten.scaled_dot_product_attention.default
TO_LAST, TO_SECOND = [0, 2, 3, 1], [0, 3, 1, 2]  # heads of [batch, heads, queries, keys], and back
# Channels of all heads together: of more, the products cost more than the moves.
MOST_CHANNELS = 4096
HEADS, WEIGHTS = variable("heads"), (variable("weight", is_constant), variable("bias", is_constant))
LAST = once(call(aten.permute.default, HEADS, TO_LAST))
MIXED = once(call(aten.permute.default, once(call(operators.linear, LAST, *WEIGHTS)), TO_SECOND))


class Mix(NamedTuple):
    """How the heads of `heads` are mixed: weight [heads, mixed], None where they are not, and bias [mixed] or None."""

    heads: Node
    weight: Node | None = None
    bias: Node | None = None


def fuse_talking_heads(graph: Graph, context: Context) -> int:
    """Fuse every attention with mixed heads; returns how many."""
    fused = sum(_fuse(node, context) for node in list(graph.nodes) if is_call(node, *PRODUCTS) and node.users)
    dead_code(graph)
    if fused:
        canonicalize(graph, context)  # moves that meet
    return fused


def _mix_of(x: Node) -> Mix:
    """How a value [batch, heads, queries, keys] was mixed of another that nothing else reads."""
    for found in MIXED.matches(x, {}):
        return Mix(**found) if only_user(found["heads"]) is not None else Mix(x)
    return Mix(x)


def _fuse(node: Node, context: Context) -> bool:
    weights, value = node.args
    after = _mix_of(weights) if len(shape_of(node)) == 4 else Mix(weights)
    softmax = after.heads
    if not is_call(softmax, *SOFTMAXES) or only_user(softmax) is None or softmax.args[1] not in (-1, 3):
        return False
    before = _mix_of(softmax.args[0])
    if before.weight is None and after.weight is None:
        return False
    with node.graph.inserting_before(node):
        scores = read_scores(before.heads)
        key = transposed(scores.keys) if scores is not None and scores.cap is None else None
    if scores is None or key is None or not all(map(is_constant, scores.masks)):
        return False
    end = _projection_of(node)
    with node.graph.inserting_before(end or node):
        return _rewrite(node, end, before, after, scores, (key, value), context)


def _projection_of(node: Node) -> Node | None:
    """The linear that reads the merged heads of `node`, where nothing else does."""
    batch, heads, seq, width = shape_of(node)
    permute = only_user(node)
    if permute is None or not is_call(permute, aten.permute.default) or [*permute.args[1]] != [0, 2, 1, 3]:
        return None
    merged = only_user(permute)
    if merged is None or shape_of(merged) != (batch, seq, heads * width):
        return None
    end = only_user(merged) if is_call(merged, aten.reshape.default) else None
    return end if end is not None and has_own_weights(end) and end.args[0] is merged else None


def _rewrite(
    node: Node, end: Node | None, before: Mix, after: Mix, scores: Scores, pair: tuple[Node, Node], context: Context
) -> bool:
    query, scale = split_scale(scores.query)
    key, value = pair
    if len(shape_of(query)) != 4:
        return False
    batch, heads, seq, width = shape_of(query)
    keys, mixed, channels = shape_of(key)[2], shape_of(node)[1], heads * width
    if shape_of(key) != (batch, heads, keys, width) or shape_of(value) != (batch, mixed, keys, channels // mixed):
        return False
    first, second = before.weight or _identity(node, heads), after.weight or _identity(node, mixed)
    count = shape_of(second)[0] + (after.bias is not None)
    if count * channels > MOST_CHANNELS:
        return False
    factors = emit(node, aten.permute.default, emit(node, aten.mul.Tensor, first, scores.scale * scale), [1, 0])
    factors = _spread(factors, [shape_of(first)[1], heads, width])
    second = _spread(second, [shape_of(second)[0], mixed, channels // mixed])
    mask = _mixed_mask(node, scores, before.weight, heads)
    if after.bias is not None:
        total = emit(node, aten.mul.Tensor, emit(node, aten.reshape.default, after.bias, [1, mixed]), float(keys))
        second = emit(node, aten.cat.default, [second, _spread(total, [1, mixed, channels // mixed])])
        factors = emit(node, aten.constant_pad_nd.default, factors, [0, 0, 0, 1])
        mask = mask and emit(node, aten.constant_pad_nd.default, mask, [0, 0, 0, 0, 0, 1])
    wide = emit(node, aten.reshape.default, factors, [1, count, 1, channels])
    wide = emit(node, aten.mul.Tensor, _merged(query, context), wide)
    operands = (wide, _merged(key, context), _merged(value, context), mask)
    found = emit(node, sdpa, *operands, 0.0, False, scale=1.0, enable_gqa=True)
    found = emit(node, aten.permute.default, found, [0, 2, 1, 3])
    found = emit(node, aten.reshape.default, found, [batch, seq, count * channels])
    weight, *bias = end.args[1:] if end is not None else (_identity(node, channels),)
    second = emit(node, aten.reshape.default, second, [count, channels, 1])
    weight = emit(node, aten.mul.Tensor, second, weight)
    weight = emit(node, aten.reshape.default, weight, [count * channels, shape_of(weight)[-1]])
    found = emit(end or node, operators.linear, found, weight, *bias)
    if end is None:
        apart = emit(node, aten.reshape.default, found, [batch, seq, mixed, channels // mixed])
        found = emit(node, aten.permute.default, apart, [0, 2, 1, 3])
    replace(end or node, found)
    return True


def _identity(node: Node, size: int) -> Node:
    return literal(node, torch.eye(size, dtype=dtype_of(node)))


def _spread(x: Node, shape: list[int]) -> Node:
    """x [rows, heads] with each number for all channels of its head, [rows, heads * width].

    shape: [rows, heads, width]
    """
    rows, heads, width = shape
    apart = emit(x, aten.reshape.default, x, [rows, heads, 1])
    return emit(x, aten.reshape.default, emit(x, aten.expand.default, apart, shape), [rows, heads * width])


def _mixed_mask(node: Node, scores: Scores, weight: Node | None, heads: int) -> Node | None:
    """The masks of the scores, mixed as these are."""
    mask: Node | None = None
    for each in scores.masks:
        each = emit(node, aten.expand.default, each, [shape_of(each)[0], heads, *shape_of(each)[2:]])
        mask = each if mask is None else emit(node, aten.add.Tensor, mask, each)
    if mask is None or weight is None:  # by an identity, -inf times 0 would be NaN
        return mask
    last = emit(node, operators.linear, emit(node, aten.permute.default, mask, TO_LAST), weight, None)
    return emit(node, aten.permute.default, last, TO_SECOND)


def _merged(x: Node, context: Context) -> Node:
    """Heads [batch, heads, seq, width] as one of all channels, as columns of what they were split from if they were."""
    batch, heads, seq, width = shape_of(x)
    columns = head_columns(x, context)
    if columns is not None:
        source = source_of(x)
        rows = emit(x, aten.reshape.default, source, [batch, seq, shape_of(source)[-1]])
        merged = take(rows, columns.reshape(-1), x)
    else:
        merged = emit(x, aten.permute.default, x, [0, 2, 1, 3])
    return emit(x, aten.reshape.default, merged, [batch, 1, seq, heads * width])
