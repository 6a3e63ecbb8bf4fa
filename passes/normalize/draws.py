"""Random numbers that have a value's shape are drawn into memory of that shape, not into the value.

Before   kept = bernoulli(x, 0.5)
After    kept = bernoulli(empty(shape of x), 0.5)

torch draws on the host, so that a seed gives what it gives in eager torch; x stays on the device. Only where x is
contiguous: torch draws in the order of memory.
"""

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, is_call, shape_of
from tt_dynamo.passes.rewrite import Rules, emit

RULES = Rules()


def draw_by_shape(graph: Graph, context: Context) -> int:
    """Replace what such draws read; returns how many."""
    return RULES.apply(graph)


@RULES.on(aten.bernoulli.p)
def _bernoulli(node: Node) -> Node | None:
    x, *rest = node.args
    if is_call(x, aten.empty.memory_format) or not x.meta["val"].is_contiguous():
        return None
    value = x.meta["val"]
    memory = emit(node, aten.empty.memory_format, list(shape_of(x)), dtype=value.dtype, device=value.device)
    return emit(node, aten.bernoulli.p, memory, *rest, **node.kwargs)
