"""Fuse a convolution, and a residual's sum, with the activation that alone reads it.

Before   y = relu(conv2d(x, w, b))         z = relu(x + y)
After    y = conv2d(x, w, b, "relu")       z = add_activation(x, y, "relu")

Sums are fused where both operands have the same shape. TTNN launches one kernel for each. Hardswish is none of the
activations that it fuses and stays a call of its own.
"""

from __future__ import annotations

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, insert, is_call, only_user, replace, shape_of
from tt_dynamo.passes.fuse.linear_activation import PLAIN


def fuse_image_activation(graph: Graph, context: Context) -> int:
    """Fuse every pair; returns how many."""
    fused = 0
    for node in list(graph.nodes):
        user = only_user(node)
        name = "" if user is None else _activation(user)
        if name and is_call(node, operators.conv2d) and len(node.args) < 9:
            target = operators.conv2d
        elif name and _is_sum(node):
            target = operators.add_activation
        else:
            continue
        with graph.inserting_before(user):
            replace(user, insert(graph, target, (*node.args, name), like=user))
        graph.erase_node(node)
        fused += 1
    return fused


def _activation(node: Node) -> str:
    if is_call(node, aten.hardtanh.default):
        return "relu6" if list(node.args[1:]) == [0, 6] and not node.kwargs else ""
    return next((name for target, name in PLAIN.items() if is_call(node, target)), "")


def _is_sum(node: Node) -> bool:
    if not is_call(node, aten.add.Tensor) or node.kwargs or len(node.args) != 2:
        return False
    x, y = node.args
    tensors = isinstance(x, Node) and isinstance(y, Node) and dtype_of(node).is_floating_point
    return tensors and shape_of(x) == shape_of(y) and dtype_of(x) == dtype_of(y)
