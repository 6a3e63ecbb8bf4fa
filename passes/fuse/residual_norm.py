"""Fuse a residual sum with the layer norm that alone reads it.

Before   y = layer_norm(x + r, [n], w, b, eps)
After    y = add_layer_norm(x, r, w, b, eps)

TTNN's norm takes the residual as an operand and returns only the norm, so a sum that is read again stays.
"""

from __future__ import annotations

from torch.fx import Graph

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, insert, is_call, replace, shape_of


def fuse_residual_norm(graph: Graph, context: Context) -> int:
    """Fuse every pair; returns how many."""
    fused = 0
    for norm in graph.find_nodes(op="call_function", target=aten.layer_norm.default):
        total, shape, weight, bias, eps = norm.args[:5]
        if not is_call(total, aten.add.Tensor) or len(total.users) != 1 or total.kwargs or len(shape) != 1:
            continue
        x, residual = total.args
        if not hasattr(residual, "meta") or any(shape_of(operand) != shape_of(total) for operand in (x, residual)):
            continue
        if dtype_of(x) != dtype_of(residual):
            continue
        with graph.inserting_before(norm):
            fused_norm = insert(graph, operators.add_layer_norm, (x, residual, weight, bias, eps), like=norm)
        replace(norm, fused_norm)
        graph.erase_node(total)
        fused += 1
    return fused
