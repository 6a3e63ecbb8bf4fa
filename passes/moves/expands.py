"""What broadcasts by itself is not expanded first.

Before   where(expand(mask, [1, 1, 64, 64]), bias, x)            mask [1, 1, 1, 64], bias [1, 4, 64, 64]
After    where(mask, bias, x)

Before   repeat(x, [4, 1, 1, 1]) * y                             x [1, 64, 256], y [4, 1, 64, 1]
After    x * y
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
        if not _is_expand(x):
            continue
        shapes = [shape_of(x.args[0] if operand is x else operand) for operand in node.all_input_nodes]
        if torch.broadcast_shapes(*shapes) == shape_of(node):
            node.replace_input_with(x, x.args[0])
            dropped += 1
    return dropped


def _is_expand(x: Node) -> bool:
    """Whether a node only makes dimensions of one larger; an expand may add none, which TTNN broadcasts otherwise."""
    if is_call(x, aten.expand.default):
        return len(shape_of(x.args[0])) == len(shape_of(x))
    if not is_call(x, aten.repeat.default):
        return False
    shape, times = shape_of(x.args[0]), x.args[1]
    before = (*[1] * (len(times) - len(shape)), *shape)
    return all(size == 1 or count == 1 for size, count in zip(before, times, strict=True))
