"""Let attention merge its heads.

Before   out = reshape(permute(scaled_dot_product_attention(...), [0, 2, 1, 3]), [batch, seq, heads * head_dim])
After    out = attention(...)

Whatever moves of data spell the merge, and whichever leading shape they end in. TTNN's attention kernel writes merged
heads itself, so the merge costs no kernel of its own; behind capped_attention it is one, merge_heads. A mask whose
contents are known to let each query read its own key and some before it becomes the kernel's window.
"""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import (
    Context,
    aten,
    dead_code,
    insert,
    literals_behind,
    only_user,
    replace,
    shape_of,
)
from tt_dynamo.passes.fuse.additive_masks import allowed_keys
from tt_dynamo.passes.movement import is_move, merges_heads

DEFAULTS = (None, 0.0, False)  # of the operands behind query, key and value: mask, dropout, is_causal


def fuse_merge_heads(graph: Graph, context: Context) -> int:
    """Fuse the chain behind every attention that merges its heads; returns how many."""
    fused = 0
    windows: dict[Node, int | None] = {}
    for node in graph.find_nodes(op="call_function", target=aten.scaled_dot_product_attention.default):
        end = _merged(node, context)
        mask, dropout, is_causal = node.args[3:6] + DEFAULTS[len(node.args) - 3 :]
        if end is None or dropout:
            continue
        operands = (*node.args[:3], mask, is_causal, node.kwargs.get("scale"))
        if mask is not None:
            if mask not in windows:
                windows[mask] = _window(mask, (shape_of(node.args[0])[2], shape_of(node.args[1])[2]))
            if windows[mask] is not None:
                operands = (*node.args[:3], None, True, node.kwargs.get("scale"), windows[mask])
        with graph.inserting_before(node):
            _replace(end, insert(graph, operators.attention, operands, like=node))
        fused += 1
    for node in graph.find_nodes(op="call_function", target=operators.capped_attention):
        end = _merged(node, context)
        if end is not None:
            with graph.inserting_before(end):
                _replace(end, insert(graph, operators.merge_heads, (node,), like=node))
            fused += 1
    if fused:
        dead_code(graph)
    return fused


def _replace(end: Node, merged: Node) -> None:
    if shape_of(merged) != shape_of(end):
        with end.graph.inserting_after(merged):
            merged = insert(end.graph, aten.reshape.default, (merged, list(shape_of(end))), like=merged)
    replace(end, merged)


def _merged(attention: Node, context: Context) -> Node | None:
    """The last node of the chain behind `attention` at which its heads are merged."""
    found, node = None, only_user(attention)
    while node is not None and is_move(node):
        if merges_heads(node, context):
            found = node
        node = only_user(node)
    return found


def _window(mask: Node, lengths: tuple[int, int]) -> int | None:
    """How many keys a query reads by a literal mask, the last one at its own place; None where it is another mask."""
    allowed = allowed_keys(mask, lengths, literals_behind(mask))
    if allowed is None or lengths[0] != lengths[1]:
        return None
    window = int(allowed[-1].sum())
    return window if torch.equal(allowed, torch.ones_like(allowed).tril().triu(1 - window)) else None
