"""Fuse a linear with the activation that alone reads it.

Before   y = gelu(linear(x, w, b))
After    y = linear(x, w, b, "gelu")

TTNN launches one kernel for both, provided it is told the core grid (without one it launches two).
"""

from __future__ import annotations

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, insert, is_call, only_user, replace

PLAIN = {
    aten.relu.default: "relu",
    aten.silu.default: "silu",
    aten.tanh.default: "tanh",
    aten.sigmoid.default: "sigmoid",
}


def fuse_linear_activation(graph: Graph, context: Context) -> int:
    """Fuse every pair; returns how many."""
    fused = 0
    for linear in graph.find_nodes(op="call_function", target=operators.linear):
        user = only_user(linear)
        activation = _activation(user) if user is not None and len(linear.args) < 4 else ""
        if not activation:
            continue
        x, weight, bias = (*linear.args, None)[:3]
        with graph.inserting_before(user):
            fused_linear = insert(graph, operators.linear, (x, weight, bias, activation), like=user)
        replace(user, fused_linear)
        graph.erase_node(linear)
        fused += 1
    return fused


def _activation(node: Node) -> str:
    for target, name in PLAIN.items():
        if is_call(node, target):
            return name
    if is_call(node, aten.gelu.default):
        return "gelu_tanh" if node.kwargs.get("approximate", "none") == "tanh" else "gelu"
    return ""
