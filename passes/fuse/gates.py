"""A product with a vector, and a sum with it, as one kernel.

Before   y = x + branch * gate               y = norm(x) * scale + shift
After    y = addcmul(x, branch, gate)        y = addcmul(shift, norm(x), scale)

Before   y = addcmul(x, linear(branch, w, b), gate)
After    y = linear_addcmul(branch, w, b, x, gate)

Diffusion transformers scale and shift their norms, and gate what a block adds to its stream, by vectors of each image
(adaLN-Zero). Vectors that are the same for all rows have gone into norms before. The linear before a gate takes it in
where one image is computed at once, and only where it has no activation.
Source: Peebles & Xie 2023, https://arxiv.org/abs/2212.09748
"""

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.rewrite import FLOATS, Rules, call, emit, is_anything, is_constant, once, variable

RULES = Rules()


def fuse_gates(graph: Graph, context: Context) -> int:
    """Fuse every such sum; returns how many."""
    return RULES.apply(graph)


def _gate(node: Node, x: Node, branch: Node, gate: Node) -> Node | None:
    if len({dtype_of(value) for value in (node, x, branch, gate)} & FLOATS) != 1:
        return None
    shape, shapes = shape_of(node), (shape_of(branch), shape_of(gate))
    if shapes[0] == shapes[1] or shape == shapes[1] or torch.broadcast_shapes(*shapes) != shape:
        return None  # of equal shapes none is a vector
    if shape != shapes[0] and shape[-1] < TILE:
        return None  # columns so few may be positions, which keep float32 in sums and products alone
    return emit(node, aten.addcmul.default, x, branch, gate)


def _linear(node: Node, x: Node, branch: Node, gate: Node, weight: Node, bias: Node | None) -> Node | None:
    is_row = shape_of(gate) == (*[1] * (len(shape_of(node)) - 1), shape_of(node)[-1])
    if not is_row or not shape_of(x) == shape_of(node) == (*shape_of(branch)[:-1], shape_of(node)[-1]):
        return None
    if len({dtype_of(value) for value in (x, branch, gate, weight)}) != 1 or not is_constant(weight):
        return None
    return emit(node, operators.linear_addcmul, branch, weight, bias, x, gate)


RULES.add(
    "gate",
    call(aten.add.Tensor, variable("x"), once(call(aten.mul.Tensor, variable("branch"), variable("gate")))),
    _gate,
)
linear = call(operators.linear, variable("branch"), variable("weight"), variable("bias", is_anything))
for one, other in ((once(linear), variable("gate")), (variable("gate"), once(linear))):
    RULES.add("gated_linear", call(aten.addcmul.default, variable("x"), one, other), _linear)
