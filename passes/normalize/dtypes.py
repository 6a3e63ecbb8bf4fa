"""Give elementwise operations operands of the dtype that they compute in, and constants their values.

Before   mul(tokens, x)                          add(mask, other)           zeros_like(x)     fill(x, 2)
After    mul(_to_copy(tokens, float32), x)       logical_or(mask, other)    full([3, 4], 0)   full([3, 4], 2)

torch promotes integers that meet floats inside the operation; as a cast of its own, placement may put it on either
side. Booleans stay: they are 0.0 and 1.0 on the device, which is what torch promotes them to. Where the result is
boolean, a sum is a disjunction. What is like a tensor in its shape alone does not depend on that tensor, nor does what
has no elements.
"""

from __future__ import annotations

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from tt_dynamo.ir.graph import (
    Context,
    aten,
    dtype_of,
    is_call,
    is_random,
    mutates,
    shape_of,
    values_of,
)
from tt_dynamo.passes.rewrite import Rules, emit

FILLED_WITH = {
    aten.zeros_like.default: 0,
    aten.ones_like.default: 1,
    aten.empty_like.default: 0,
    aten.new_zeros.default: 0,
    aten.new_ones.default: 1,
    aten.new_empty.default: 0,
}
FILLED = {aten.full_like.default: 1, aten.fill.Scalar: 1, aten.new_full.default: 2}  # where the number stands


RULES = Rules()


def promote_operands(graph: Graph, context: Context) -> int:
    """Insert the casts, and rewrite sums of booleans and constants; returns how many nodes changed."""
    return RULES.apply(graph)


def _is_integer(node: Node) -> bool:
    dtypes = [value.dtype for value in values_of(node)]
    return bool(dtypes) and all(not d.is_floating_point and not d.is_complex and d != torch.bool for d in dtypes)


@RULES.on()
def fill(node: Node) -> Node | None:
    """A tensor that is like another in its shape, filled with one number, is a constant; so is one with no elements."""
    if not isinstance(node.meta.get("val"), torch.Tensor):
        return None
    number = FILLED_WITH.get(node.target)
    if node.target in FILLED:
        number = node.args[FILLED[node.target]]
    elif 0 in shape_of(node) and node.all_input_nodes and not (mutates(node) or is_random(node)):
        number = 0
    if number is None or isinstance(number, Node) or any(isinstance(size, torch.SymInt) for size in shape_of(node)):
        return None
    device = node.meta["val"].device
    return emit(node, aten.full.default, list(shape_of(node)), number, dtype=dtype_of(node), device=device)


@RULES.on()
def _cast_operands(node: Node) -> Node | None:
    """Cast the integers among the operands of an elementwise operation whose result is a float."""
    if torch.Tag.pointwise not in getattr(node.target, "tags", ()) or not isinstance(node.meta["val"], torch.Tensor):
        return None
    if not dtype_of(node).is_floating_point or is_call(node, aten._to_copy.default):
        return None
    condition = node.args[0] if is_call(node, aten.where.self) else None
    integers = [operand for operand in node.all_input_nodes if _is_integer(operand) and operand is not condition]
    if not integers:
        return None
    casts = {operand: emit(node, aten._to_copy.default, operand, dtype=dtype_of(node)) for operand in integers}
    args, kwargs = map_arg((node.args, node.kwargs), lambda operand: casts.get(operand, operand))
    return emit(node, node.target, *args, **kwargs)


@RULES.on(aten.add.Tensor)
def _join_booleans(node: Node) -> Node | None:
    """A sum of two booleans is their disjunction."""
    if dtype_of(node) != torch.bool or node.kwargs or not all(isinstance(operand, Node) for operand in node.args):
        return None
    return emit(node, aten.logical_or.default, *node.args)
