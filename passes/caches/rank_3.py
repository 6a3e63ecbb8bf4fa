"""Carry activations at rank 4 between attentions, as TTNN's attention gives and takes them.

Before   x = reshape(attention(...), [b, s, n]);   y = linear(x, w) + r;   split_heads(reshape(y, [b, 1, s, n]))
After    x = attention(...);   y = linear(x, w) + reshape(r, [b, 1, s, n]);   split_heads(y)

A reshape to rank 3 moves below every operation that works row by row, until it meets the reshape in front of the next
attention and both vanish. Reshapes are views and launch no kernel, but each is a call of the host.
"""

from __future__ import annotations

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, insert, is_call, replace, shape_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize

# For each operation that works row by row, which operands hold the rows.
ROWS = {
    operators.linear: (0,),
    operators.add_layer_norm: (0, 1),
    operators.rms_norm: (0,),
    aten.layer_norm.default: (0,),
    aten.add.Tensor: (0, 1),
    aten.mul.Tensor: (0, 1),
    aten.gelu.default: (0,),
    aten.relu.default: (0,),
    aten.silu.default: (0,),
    aten.sigmoid.default: (0,),
    aten.tanh.default: (0,),
}


def sink_rank3_reshapes(graph: Graph, context: Context) -> int:
    """Move every such reshape as far down as it goes; returns past how many operations."""
    carried = 0
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in ROWS and _carry(graph, node):
            carried += 1
    if carried:
        canonicalize(graph, context)
    return carried


def _carry(graph: Graph, node: Node) -> bool:
    positions = [p for p in ROWS[node.target] if p < len(node.args) and isinstance(node.args[p], Node)]
    rows = [node.args[p] for p in positions]
    if len(shape_of(node)) != 3 or not any(_drops_one(x) for x in rows):
        return False
    leading = shape_of(node)[:2]
    if any(shape_of(x)[:2] != leading or len(shape_of(x)) != 3 for x in rows):
        return False  # a broadcast operand
    args = list(node.args)
    with graph.inserting_before(node):
        for position, x in zip(positions, rows, strict=True):
            args[position] = x.args[0] if _drops_one(x) else _reshaped(graph, x, _with_one(shape_of(x)), node)
        wide = insert(graph, node.target, tuple(args), dict(node.kwargs), like=node)
        replace(node, _reshaped(graph, wide, shape_of(node), node))
    return True


def _with_one(shape: tuple[int, ...]) -> tuple[int, ...]:
    batch, seq, width = shape
    return batch, 1, seq, width


def _drops_one(x: Node) -> bool:
    """Whether x is [batch, seq, width], reshaped from [batch, 1, seq, width]."""
    shape = shape_of(x)
    return is_call(x, aten.reshape.default) and len(shape) == 3 and shape_of(x.args[0]) == _with_one(shape)


def _reshaped(graph: Graph, x: Node, shape: tuple[int, ...], like: Node) -> Node:
    return insert(graph, aten.reshape.default, (x, list(shape)), like=like)
