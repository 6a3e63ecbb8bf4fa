"""Let a linear's weights take the number that its result is multiplied by.

Before   q = heads(linear(x, w, b) * 0.125)
After    q = heads(linear(x, w * 0.125, b * 0.125))

Whisper and OPT scale their queries before the heads are split, which is a kernel in every layer and keeps the query's
projection apart from those of key and value. Moves of data may stand between the two; nothing else may read them.
"""

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call
from tt_dynamo.passes.fuse.attention import split_scale
from tt_dynamo.passes.movement import is_move
from tt_dynamo.passes.rewrite import DIV, MUL, Rules, emit, is_constant

RULES = Rules()


def fold_scales(graph: Graph, context: Context) -> int:
    """Fold every number that multiplies what a linear with constant weights gives; returns how many."""
    return RULES.apply(graph)


@RULES.on(*MUL, *DIV)
def _fold(node: Node) -> Node | None:
    x, scale = split_scale(node)
    linear = x
    while is_move(linear) and len(linear.users) == 1:
        linear = linear.args[0]
    is_plain = is_call(linear, operators.linear) and len(linear.users) == 1 and len(linear.args) <= 3
    if x is node or not is_plain or dtype_of(x) != dtype_of(node) or not all(map(is_constant, linear.args[1:])):
        return None
    with node.graph.inserting_before(linear):
        weights = [weight and emit(linear, aten.mul.Tensor, weight, scale) for weight in linear.args[1:]]
    linear.args = (linear.args[0], *weights)
    return x
