"""Let attention merge its heads.

Before   out = reshape(permute(scaled_dot_product_attention(...), [0, 2, 1, 3]), [batch, seq, heads * head_dim])
After    out = attention(...)

Whatever moves of data spell the merge, and whichever leading shape they end in. TTNN's attention kernel writes merged
heads itself, so the merge costs no kernel of its own.
"""

from __future__ import annotations

from torch.fx import Graph, Node

from tt_dynamo import operators
from tt_dynamo.graph import Context, aten, dead_code, insert, only_user, replace, shape_of
from tt_dynamo.passes.movement import is_move, merges_heads

DEFAULTS = (None, 0.0, False)  # of the operands behind query, key and value: mask, dropout, is_causal


def fuse_merge_heads(graph: Graph, context: Context) -> int:
    """Fuse the chain behind every attention that merges its heads; returns how many."""
    fused = 0
    for node in graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default):
        end = _merged(node, context)
        mask, dropout, is_causal = node.args[3:6] + DEFAULTS[len(node.args) - 3 :]
        if end is None or dropout or node.kwargs.get("enable_gqa"):
            continue
        operands = (*node.args[:3], mask, is_causal, node.kwargs.get("scale"))
        with graph.inserting_before(node):
            merged = insert(graph, operators.attention, operands, like=node)
            if shape_of(merged) != shape_of(end):
                merged = insert(graph, aten.reshape.default, (merged, list(shape_of(end))), like=node)
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
