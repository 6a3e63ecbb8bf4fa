"""What broadcasts by itself is not expanded first.

Before   where(expand(mask, [1, 1, 64, 64]), bias, x)            mask [1, 1, 1, 64], bias [1, 4, 64, 64]
After    where(mask, bias, x)
"""

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, shape_of

BROADCAST = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.where.self)


def drop_expands(graph: Graph, context: Context) -> int:
    """Have operations read what is expanded where their other operands are as large; returns how often."""
    count = sum(_drop(node) for node in graph.nodes if is_call(node, *BROADCAST))
    dead_code(graph)
    return count


def _drop(node: Node) -> int:
    dropped = 0
    for x in node.all_input_nodes:
        if not is_call(x, aten.expand.default) or len(shape_of(x.args[0])) != len(shape_of(x)):
            continue
        shapes = [shape_of(x.args[0] if operand is x else operand) for operand in node.all_input_nodes]
        if torch.broadcast_shapes(*shapes) == shape_of(node):
            node.replace_input_with(x, x.args[0])
            dropped += 1
    return dropped
