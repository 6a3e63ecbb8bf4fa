"""A sum of rows with constant weights as one product.

Before   sum(x * w, [-2], True)                      x [..., rows, channels], w [..., rows, 1] of parameters or literals
After    wᵀ @ x

Statistics over a signal whose rows a mask may leave out (speaker recognition) are such sums, with weights 1 / rows.
"""

import math

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dtype_of, shape_of
from tt_dynamo.passes.rewrite import FLOATS, Rules, call, emit, is_anything, is_constant, once, variable

RULES = Rules()


def fuse_weighted_sums(graph: Graph, context: Context) -> int:
    """Fuse every such sum; returns how many."""
    return RULES.apply(graph)


def _fused(node: Node, x: Node, weights: Node, dims: list[int] | None) -> Node | None:
    rank, rows = len(shape_of(x)), shape_of(x)[-2:-1]
    is_column = len(shape_of(weights)) <= rank and math.prod(shape_of(weights)) == math.prod(shape_of(weights)[-2:-1])
    alike = dtype_of(x) == dtype_of(weights) == dtype_of(node) and dtype_of(x) in FLOATS
    if not is_column or not alike or shape_of(weights)[-2:-1] != rows:
        return None
    if [dim % rank for dim in dims or ()] != [rank - 2]:
        return None
    return emit(node, aten.matmul.default, emit(node, aten.reshape.default, weights, [*[1] * (rank - 1), *rows]), x)


x, dims = variable("x"), variable("dims", is_anything)
weights = variable("weights", lambda value: isinstance(value, Node) and is_constant(value))
RULES.add("weighted_sum", call(aten.sum.dim_IntList, once(call(aten.mul.Tensor, x, weights)), dims, True), _fused)
