"""Project key and value of what attention reads besides its queries at once, and split their heads in one kernel.

Before   k = permute(reshape(linear(y, wk), [batch, seq, heads, head_dim]), [0, 2, 1, 3])   v = … of linear(y, wv)
After    k, v = split_key_value(linear(y, w), heads)      w holds the columns of each head's key, then of its value

As in cross-attention: a query comes from elsewhere, so that `fuse_qkv` finds no three of one input. Only linears of
constants that nothing else reads, and several heads of whole tiles: one is a view.
"""

import operator

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.fuse.linears import Projection, hoist_operands, projections, take
from tt_dynamo.passes.movement import source_of
from tt_dynamo.passes.rewrite import emit

ATTENTIONS = (operators.attention, operators.capped_attention, aten.scaled_dot_product_attention.default)


def split_key_value_heads(graph: Graph, context: Context) -> int:
    """Fuse every such pair; returns how many."""
    fused = 0
    for attention in [node for node in graph.nodes if is_call(node, *ATTENTIONS)]:
        pair = [_lone(operand, context) for operand in attention.args[1:3]]
        if None not in pair and _are_alike(*pair):
            _fuse(*pair)
            fused += 1
    dead_code(graph)
    return fused


def _lone(heads: Node, context: Context) -> Projection | None:
    """The projection that makes these heads and nothing else."""
    found = projections(source_of(heads), context)
    return found[0] if len(found) == 1 and found[0].heads is heads else None


def _are_alike(key: Projection, value: Projection) -> bool:
    _, heads, seq, head_dim = shape = shape_of(key.heads)
    apart, alike = key.linear is not value.linear, key.linear.args[0] is value.linear.args[0]
    return apart and alike and shape == shape_of(value.heads) and min(heads, seq) > 1 and head_dim % TILE == 0


def _fuse(key: Projection, value: Projection) -> None:
    batch, heads, seq, head_dim = shape_of(key.heads)
    first = min(key.linear, value.linear)
    hoist_operands((key.linear, value.linear), first)
    width = shape_of(key.linear)[-1]
    numbers = torch.cat([key.columns, value.columns + width], -1).reshape(-1)
    with first.graph.inserting_before(first):
        weights, biases = zip(*((*p.linear.args[1:], None)[:2] for p in (key, value)), strict=True)
        weight = take(emit(first, aten.cat.default, list(weights), -1), numbers, first)
        bias = None
        if any(biases):
            zeros = [emit(first, aten.zeros.default, [width], dtype=dtype_of(weight)) for _ in biases]
            whole = [bias or none for bias, none in zip(biases, zeros, strict=True)]
            bias = take(emit(first, aten.cat.default, whole), numbers, first)
        both = emit(first, operators.linear, first.args[0], weight, bias)
        both = emit(first, aten.reshape.default, both, [batch, 1, seq, 2 * heads * head_dim])
        split = emit(first, operators.split_key_value, both, heads)
        picks = [emit(first, operator.getitem, split, index) for index in range(2)]
    for projection, pick in zip((key, value), picks, strict=True):
        replace(projection.heads, pick)
