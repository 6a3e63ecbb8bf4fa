"""Merge the heads that attention gives in one operation.

Before   out = reshape(permute(attention, [0, 2, 1, 3]), [batch, seq, heads * head_dim])
After    out = merge_heads(attention)

Whatever moves of data spell the merge, and whichever leading shape they end in.
"""

from __future__ import annotations

from torch.fx import Graph, Node
from tt_dynamo.passes.movement import is_move, merges_heads

from tt_dynamo import operators
from tt_dynamo.graph import Context, aten, dead_code, insert, only_user, replace, shape_of


def fuse_merge_heads(graph: Graph, context: Context) -> int:
    """Fuse the chain behind every attention that merges its heads; returns how many."""
    fused = 0
    for attention in graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default):
        end = _merged(attention, context)
        if end is None:
            continue
        with graph.inserting_after(attention):
            merged = insert(graph, operators.merge_heads, (attention,), like=end)
        if shape_of(merged) != shape_of(end):
            with graph.inserting_after(merged):
                merged = insert(graph, aten.reshape.default, (merged, list(shape_of(end))), like=end)
        replace(end, merged)
        fused += 1
    if fused:
        dead_code(graph)
    return fused


def _merged(attention: Node, context: Context) -> Node | None:
    """The last node of the chain behind `attention` at which its heads are merged."""
    found, node = None, only_user(attention)
    while node is not None and is_move(node):
        if merges_heads(node, context):
            found = node
        node = only_user(node)
    return found
