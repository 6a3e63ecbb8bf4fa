"""Floats that pass through integers and back stay floats, where the integers hold all of their values.

Before   y = _to_copy(_to_copy(clamp(round(x), -128, 127), int8), float)
After    y = clamp(round(x), -128, 127)

Activations that are rounded to a scale are spelled so, as BitNet's and those of quantized graphs. TTNN has no 8-bit
integers of a sign, but bfloat16 holds each of them. Bounds must be known: what is outside wraps around in torch.
"""

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, constant_nodes, dtype_of, is_call
from tt_dynamo.passes.rewrite import Rules, argument, as_dtype, emit, is_number

RULES = Rules()
ROUNDINGS = (aten.round.default, aten.trunc.default, aten.floor.default, aten.ceil.default)
BYTES = (torch.int8, torch.uint8)


def drop_integer_round_trips(graph: Graph, context: Context) -> int:
    """Replace each such pair of casts; returns how many."""
    return RULES.apply(graph, leave=constant_nodes)


@RULES.on(aten._to_copy.default)
def _float_of_byte(node: Node) -> Node | None:
    byte = node.args[0]
    if not (dtype_of(node).is_floating_point and is_call(byte, aten._to_copy.default) and dtype_of(byte) in BYTES):
        return None
    x = byte.args[0]
    if not dtype_of(x).is_floating_point or not _is_within(x, torch.iinfo(dtype_of(byte))):
        return None
    whole = x if _is_whole(x) else emit(node, aten.trunc.default, x)
    return as_dtype(whole, dtype_of(node), node)


def _is_within(x: Node, integers: torch.iinfo) -> bool:
    """Whether all of x are known to be among the integers, once they are rounded."""
    while is_call(x, *ROUNDINGS):
        x = x.args[0]
    if not is_call(x, aten.clamp.default):
        return False
    least, most = argument(x, 1), argument(x, 2)
    return is_number(least) and is_number(most) and integers.min <= least <= most <= integers.max


def _is_whole(x: Node) -> bool:
    """Whether all of x are integers."""
    if is_call(x, aten.clamp.default):
        bounds = (argument(x, 1), argument(x, 2))
        return all(bound is None or bound == int(bound) for bound in bounds) and _is_whole(x.args[0])
    return is_call(x, *ROUNDINGS)
