"""Heads that are merged in another order than attention gives them: the linear behind takes that order.

Before   y = linear(reshape(permute(attention, [0, 2, 3, 1]), [b, s, d * h]), w)           attention [b, h, s, d]
After    y = linear(reshape(permute(attention, [0, 2, 1, 3]), [b, s, h * d]), w[rows in that order])

As NesT has it. TTNN's attention writes heads one beside the other; rows of a constant weight are ordered once.
"""

import math

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, shape_of
from tt_dynamo.passes.fuse.linears import take
from tt_dynamo.passes.movement import merges_heads, numbered, positions, source_of
from tt_dynamo.passes.rewrite import emit, is_constant

ATTENTIONS = (aten.scaled_dot_product_attention.default, operators.capped_attention)


def order_merged_columns(graph: Graph, context: Context) -> int:
    """Rewrite every such linear; returns how many."""
    count = 0
    for linear in graph.find_nodes(op="call_function", target=operators.linear):
        x, weight = linear.args[:2]
        heads = source_of(x)
        is_attended = is_call(heads, *ATTENTIONS) and len(shape_of(heads)) == 4
        if is_attended and is_constant(weight) and not merges_heads(x, context):
            count += _order(linear, context)
    dead_code(graph)
    return count


def _order(linear: Node, context: Context) -> bool:
    x, weight = linear.args[:2]
    heads, found = source_of(x), positions(x, context)
    batch, count, seq, head_dim = shape_of(heads)
    width = shape_of(weight)[0]
    if found is None or found[0] != 1 or width != count * head_dim or found[1].numel() != math.prod(shape_of(heads)):
        return False
    merged = numbered(shape_of(heads)).permute(0, 2, 1, 3).reshape(-1, width)
    read = found[1].reshape(-1, width)
    first, order = merged[0].sort()
    rows = order[torch.searchsorted(first, read[0]).clamp(max=width - 1)].long()
    if not torch.equal(merged[:, rows], read):
        return False
    with linear.graph.inserting_before(linear):
        beside = emit(x, aten.permute.default, heads, [0, 2, 1, 3])
        beside = emit(x, aten.reshape.default, beside, list(shape_of(x)))
        ordered = take(weight, torch.argsort(rows), linear, dim=0)
    linear.args = (beside, ordered, *linear.args[2:])
    return True
