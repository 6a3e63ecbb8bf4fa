"""Floats that pass through integers and back stay floats, where the integers hold all of their values.

Before   y = _to_copy(_to_copy(clamp(round(x), -128, 127), int8), float)
After    y = clamp(round(x), -128, 127)

Before   y = clamp(round(x) + 3, 0, 255) - 3
After    y = clamp(round(x), -3, 252)

Activations that are rounded to a scale are spelled so, as BitNet's and those of quantized graphs, which add a zero
point before they clamp. TTNN has no 8-bit
integers of a sign, but bfloat16 holds each of them. Bounds must be known: what is outside wraps around in torch.
"""

from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, constant_nodes, dtype_of, is_call
from tt_dynamo.passes.rewrite import Rules, argument, as_dtype, emit, is_number

RULES = Rules()
ROUNDINGS = (aten.round.default, aten.trunc.default, aten.floor.default, aten.ceil.default)
BYTES = (torch.int8, torch.uint8)
FLOATS = (torch.float32, torch.bfloat16)
WHOLE = 256  # up to here bfloat16 holds every integer


def drop_integer_round_trips(graph: Graph, context: Context) -> int:
    """Replace each such pair of casts or of shifts; returns how many."""
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


@RULES.on(aten.sub.Tensor)
def _without_zero_point(node: Node) -> Node | None:
    """Floats that a zero point was added to, which is subtracted after they are clamped."""
    clamped, point = node.args
    if not is_number(point) or node.kwargs or dtype_of(node) not in FLOATS or dtype_of(node) != dtype_of(clamped):
        return None
    if not is_call(clamped, aten.clamp.default) or len(clamped.users) > 1:
        return None
    if point == 0:
        return clamped
    shifted, numbers = clamped.args[0], (point, argument(clamped, 1), argument(clamped, 2))
    if not is_call(shifted, aten.add.Tensor) or shifted.args[1] != point or shifted.kwargs:
        return None
    if dtype_of(shifted.args[0]) != dtype_of(node):
        return None
    if not _is_whole(shifted.args[0]) or not all(is_number(x) and _is_whole(x) and abs(x) <= WHOLE for x in numbers):
        return None
    least, most = (bound - point for bound in numbers[1:])
    if max(abs(least), abs(most)) > WHOLE:
        return None
    return emit(node, aten.clamp.default, shifted.args[0], least, most)


def _is_within(x: Node, integers: torch.iinfo) -> bool:
    """Whether all of x are known to be among the integers, once they are rounded."""
    while is_call(x, *ROUNDINGS):
        x = x.args[0]
    if not is_call(x, aten.clamp.default):
        return False
    least, most = argument(x, 1), argument(x, 2)
    return is_number(least) and is_number(most) and integers.min <= least <= most <= integers.max


def _is_whole(x: Any) -> bool:
    """Whether all of x are integers."""
    if is_call(x, aten.clamp.default):
        bounds = (argument(x, 1), argument(x, 2))
        return all(bound is None or float(bound).is_integer() for bound in bounds) and _is_whole(x.args[0])
    if is_call(x, aten.add.Tensor) and argument(x, 2, 1) == 1:
        return _is_whole(x.args[0]) and _is_whole(x.args[1])  # from a zero point on
    if isinstance(x, Node):
        return is_call(x, *ROUNDINGS) or not (dtype_of(x).is_floating_point or dtype_of(x).is_complex)
    return float(x).is_integer()
