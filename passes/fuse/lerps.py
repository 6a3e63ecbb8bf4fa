"""A mean of two values with weights that sum to one, as one kernel.

Before   y = x * weight + other * (1 - weight)
After    y = lerp(other, x, weight)

RWKV mixes each token with the one before so, by a vector of weights; recurrent networks mix a state with what is new,
by a gate.
"""

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dtype_of, shape_of
from tt_dynamo.passes.rewrite import FLOATS, Rules, call, emit, once, variable

RULES = Rules()


def fuse_lerps(graph: Graph, context: Context) -> int:
    """Fuse every such sum; returns how many."""
    return RULES.apply(graph)


def _lerp(node: Node, x: Node, other: Node, weight: Node) -> Node | None:
    shape, size = shape_of(node), shape_of(weight)
    if len({dtype_of(value) for value in (node, x, other, weight)} & FLOATS) != 1:
        return None
    is_row = len(size) == len(shape) and size == (*[1] * (len(shape) - 1), shape[-1])
    if not shape_of(x) == shape_of(other) == shape or not (size == shape or is_row):
        return None
    return emit(node, aten.lerp.Tensor, other, x, weight)


REST = call(aten.sub.Tensor, 1, variable("weight")) | call(aten.rsub.Scalar, variable("weight"), 1)
RULES.add(
    "lerp",
    call(
        aten.add.Tensor,
        once(call(aten.mul.Tensor, variable("x"), variable("weight"))),
        once(call(aten.mul.Tensor, variable("other"), REST)),
    ),
    _lerp,
)
