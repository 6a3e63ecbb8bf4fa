"""Let a prompt that fills a cache attend to its own keys and values, not to the whole cache.

Before   attention(q, fill_cache(keys, k), fill_cache(values, v), mask [.., seq, length])
After    attention(q, k, v, mask [.., seq, seq]), or as a causal one without a mask

Where the mask is known at compile time and lets nothing read behind the prompt.
"""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, literal_nodes, literal_value, shape_of
from tt_dynamo.passes.rows import literal

SDPA = aten.scaled_dot_product_attention.default
FORBIDDEN = torch.finfo(torch.bfloat16).min / 2  # and below: counts for nothing beside any other score


def attention_to_prompt(graph: Graph, context: Context) -> int:
    """Rewrite every such attention; returns how many."""
    literals = literal_nodes(graph)
    changed = 0
    for node in graph.find_nodes(op="call_function", target=SDPA):
        query, key, value, mask, *rest = (*node.args, None)[: max(len(node.args), 4)]
        if not isinstance(mask, Node) or any(rest):
            continue
        if not all(is_call(cache, operators.fill_cache) for cache in (key, value)):
            continue
        keys, values = key.args[1], value.args[1]
        seq = shape_of(keys)[2]
        known = literal_value(mask, literals)
        if known is None or shape_of(query)[2] != seq or known.shape[-1] <= seq:
            continue
        if known.dtype == torch.bool:
            known = torch.where(known, 0.0, float("-inf"))
        if not bool((known[..., seq:] <= FORBIDDEN).all()):
            continue
        own = known[..., :seq]
        is_causal = _is_causal(own)
        with graph.inserting_before(node):
            cut = None if is_causal else literal(node, own)
            node.args = (query, keys, values, cut, 0.0, is_causal)
        changed += 1
    if changed:
        dead_code(graph)
    return changed


def _is_causal(mask: torch.Tensor) -> bool:
    allowed = torch.ones(mask.shape[-2:], dtype=torch.bool).tril()
    return bool(torch.where(allowed, mask == 0, mask <= FORBIDDEN).all())
