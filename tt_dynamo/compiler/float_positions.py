"""Arithmetic of positions that are float32: timesteps of diffusion, coordinates, positions of rotary embedding.

The device holds bfloat16, in which position 1001 is 1000 and 0.9999 is 1. What turns on such digits is computed on the
host in float32, and only its result goes up: angles and exponents, comparisons with numbers that bfloat16 has not, and
integers that are made of floats. This is a choice of place, as for integers, and no fallback. What a network computes
is rounded before it comes here, and stays on the device.
"""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, constant_nodes, dtype_of, is_call, is_parameter, shape_of, values_of
from tt_dynamo.passes.place.place import MOVES

FLOATS = (torch.float32, torch.float16)
LARGEST = 1 << 20  # elements of a value: what is larger is no table of positions
COORDINATES = 4  # a product over more than these is a layer of a network
PRODUCTS = frozenset({aten.mm.default, aten.bmm.default, aten.matmul.default, operators.linear})
SCALINGS = PRODUCTS | {
    *(aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar),
    *(aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.pow.Tensor_Scalar),
}
ARITHMETIC = SCALINGS | MOVES | {aten.neg.default, aten.abs.default, aten.sqrt.default, aten.log.default}
PERIODIC_OR_STEEP = frozenset(
    {
        *(aten.sin.default, aten.cos.default, aten.tan.default),
        *(aten.exp.default, aten.exp2.default, aten.expm1.default, aten.pow.Scalar),
    }
)
STEPS = frozenset(
    {
        *(aten.floor.default, aten.ceil.default, aten.round.default, aten.trunc.default, aten.frac.default),
        *(aten.fmod.Scalar, aten.fmod.Tensor, aten.remainder.Scalar, aten.remainder.Tensor),
        *(aten.bucketize.Tensor, aten.searchsorted.Tensor),
    }
)
COMPARISONS = frozenset(
    getattr(getattr(aten, name), kind) for name in ("eq", "ne", "lt", "le", "gt", "ge") for kind in ("Scalar", "Tensor")
)


def float_position_math(graph: Graph) -> set[Node]:
    """The nodes that are computed from inputs and constants alone, up to where digits count that bfloat16 has not."""
    constants = constant_nodes(graph)
    scaled: dict[Node, bool] = {}  # what is computed from inputs, and whether it was scaled since
    found: set[Node] = set()
    for node in graph.nodes:
        varying = [n for n in node.all_input_nodes if n not in constants]
        if not _is_small(node) or not all(n in scaled for n in varying):
            continue
        if node.op == "placeholder" and not is_parameter(node):
            scaled[node] = False
        elif varying:
            is_scaled = any(scaled[n] for n in varying)
            if _is_sensitive(node, is_scaled):
                found.add(node)
            elif node.target not in ARITHMETIC or _is_layer(node):
                continue
            scaled[node] = is_scaled or node in found or node.target in SCALINGS
    for node in reversed(scaled):
        if any(user in found for user in node.users):
            found.add(node)
    return found


def _is_small(node: Node) -> bool:
    values = values_of(node)
    kinds = (*FLOATS, torch.int64, torch.int32, torch.bool)
    return len(values) == 1 and values[0].numel() <= LARGEST and values[0].dtype in kinds


def _is_layer(node: Node) -> bool:
    return node.target in PRODUCTS and shape_of(node.args[0])[-1] > COORDINATES


def _is_sensitive(node: Node, is_scaled: bool) -> bool:
    """Whether digits of the operand count that bfloat16 has not."""
    if not any(value.dtype in FLOATS for operand in node.all_input_nodes for value in values_of(operand)):
        return False
    if is_call(node, *COMPARISONS):
        number = node.args[1]
        return is_scaled or (isinstance(number, float) and float(torch.tensor(number).bfloat16()) != number)
    if is_call(node, aten._to_copy.default):
        return is_scaled and not dtype_of(node).is_floating_point
    return is_scaled and node.target in PERIODIC_OR_STEEP | STEPS
