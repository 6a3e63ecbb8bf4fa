"""Limits that what they limit keeps by itself are dropped.

Before   clamp(softplus(x), 0, inf)      After    softplus(x)

State spaces limit their steps to a range that a configuration may leave open.
"""

import math

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, is_call
from tt_dynamo.passes.rewrite import Rules, arguments

LIMITS = Rules()
POSITIVE = (aten.softplus.default, aten.exp.default, aten.sigmoid.default, aten.relu.default, aten.abs.default)


def drop_limits(graph: Graph, context: Context) -> int:
    """Drop every such limit; returns how many."""
    return LIMITS.apply(graph)


@LIMITS.on(aten.clamp.default)
def _kept(node: Node) -> Node | None:
    given = arguments(node)
    low, high, x = given["min"], given["max"], given["self"]
    keeps_low = low is None or low == -math.inf or (low <= 0 and is_call(x, *POSITIVE))
    return x if keeps_low and (high is None or high == math.inf) else None
