"""Split the heads of one projection in one kernel, where its query, key or value is alone in having its input.

Before   q = permute(reshape(linear(x, w), [batch, seq, heads, head_dim]), [0, 2, 1, 3])
After    q = split_lone_heads(linear(x, w), heads)

As in cross-attention, and in attention to fewer keys than there are queries: SegFormer's, PVT's, Twins'. TTNN's kernel
that splits query, key and value splits heads of whole tiles, also without any of keys and values.
"""

import torch
from torch.fx import Graph

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.movement import head_columns, source_of
from tt_dynamo.passes.rewrite import emit


def split_lone_heads(graph: Graph, context: Context) -> int:
    """Split the heads of every such linear; returns how many."""
    changed = 0
    for node in graph.find_nodes(op="call_function", target=aten.permute.default):
        linear = source_of(node)
        columns = head_columns(node, context) if is_call(linear, operators.linear) else None
        if columns is None or not torch.equal(columns.reshape(-1), torch.arange(shape_of(linear)[-1])):
            continue
        batch, heads, seq, head_dim = shape_of(node)
        if seq == 1 or head_dim % TILE:
            continue
        with graph.inserting_before(node):
            made = emit(node, aten.reshape.default, linear, [batch, 1, seq, heads * head_dim])
            replace(node, emit(node, operators.split_lone_heads, made, heads))
        changed += 1
    dead_code(graph)
    return changed
