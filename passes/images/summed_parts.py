"""A convolution of one pixel of a few joined images as the sum of a convolution of each.

Before   y = relu(convolution(cat([a, b, c], 1), w, bias))                     widths that fill no tiles
After    y = relu(convolution(a, w[:, :16], bias) + convolution(b, w[:, 16:32]) + convolution(c, w[:, 32:]))

Images lie channels last: those whose channels fill no tiles leave their cores for a join, which untilizes and tilizes
them, and a convolution brings them back. Products of the parts stay where they are, and take less time than the moves
as long as parts are few. Where convolutions can fill the parts up to tiles, these are joined on the cores.
"""

import itertools

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, only_user, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.images.moved_channels import is_dense
from tt_dynamo.passes.movement import joined_along
from tt_dynamo.passes.rewrite import emit

MOST = 3  # parts: of more, sums cost what the join does


def sum_parts(graph: Graph, context: Context) -> int:
    """Rewrite every such convolution; returns how many."""
    count = sum(map(_sum, graph.find_nodes(op="call_function", target=aten.convolution.default)))
    dead_code(graph)
    return count


def _sum(node: Node) -> bool:
    join, weight, bias, *rest = node.args
    if not is_dense(node) or shape_of(weight)[2:] != (1, 1) or any(rest[1]):
        return False
    if not is_call(join, aten.cat.default) or joined_along(join) != -3 or only_user(join) is None:
        return False
    parts = join.args[0]
    widths = [shape_of(part)[1] for part in parts]
    if not 1 < len(parts) <= MOST or len({*parts}) < len(parts) or not any(width % TILE for width in widths):
        return False
    with node.graph.inserting_before(node):
        total: Node | None = None
        for part, (start, end) in zip(parts, itertools.pairwise([0, *itertools.accumulate(widths)]), strict=True):
            columns = emit(node, aten.slice.Tensor, weight, 1, start, end)
            made = emit(node, node.target, part, columns, bias if total is None else None, *rest)
            total = made if total is None else emit(node, aten.add.Tensor, total, made)
        replace(node, total)
    return True
