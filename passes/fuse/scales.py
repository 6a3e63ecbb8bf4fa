"""Let a linear's weights take the number that its result is multiplied by.

Before   q = heads(linear(x, w, b) * 0.125)
After    q = heads(linear(x, w * 0.125, b * 0.125))

Whisper and OPT scale their queries before the heads are split, which is a kernel in every layer and keeps the query's
projection apart from those of key and value. Moves of data may stand between the two; nothing else may read them.
"""

from __future__ import annotations

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dead_code, dtype_of, insert, is_call, replace
from tt_dynamo.passes.fuse.attention_scores import split_scale
from tt_dynamo.passes.movement import is_move


def fold_scales(graph: Graph, context: Context) -> int:
    """Fold every number that multiplies what a linear with constant weights gives; returns how many."""
    constants = constant_nodes(graph)
    folded = 0
    for node in list(graph.nodes):
        x, scale = split_scale(node)
        if x is node or node in constants or dtype_of(x) != dtype_of(node):
            continue
        linear = _source(x)
        if linear is None or any(weight not in constants for weight in linear.args[1:3] if weight is not None):
            continue
        with graph.inserting_before(linear):
            weights = [w and insert(graph, aten.mul.Tensor, (w, scale), like=linear) for w in linear.args[1:3]]
        linear.args = (linear.args[0], *weights)
        constants.update(weight for weight in weights if weight is not None)
        replace(node, x)
        folded += 1
    if folded:
        dead_code(graph)
    return folded


def _source(x: Node) -> Node | None:
    """The linear, without an activation, that x is made of by moves alone and that nothing else reads."""
    while is_move(x) and len(x.users) == 1:
        x = x.args[0]
    return x if is_call(x, operators.linear) and len(x.users) == 1 and len(x.args) <= 3 else None
