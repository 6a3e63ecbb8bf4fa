"""Fuse a root mean square norm that is spelled out into one operation.

Before   y = x * rsqrt(mean(x ** 2, -1, keepdim) + eps) * weight
After    y = rms_norm(x, weight, eps)

Models write the square as a power or a product, the root as rsqrt or as a division by sqrt, and cast to float32 and
back around it; the weight may be any vector of x's width, such as Gemma's 1 + weight. Several trailing dimensions are
one when flattened. What of the chain something else reads (training saves the root) stays for that reader. A norm of
heads comes after the move that brings them to the front, so that the projection before it still sees where they go.
"""

from __future__ import annotations

import math

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call, shape_of
from tt_dynamo.passes.movement import is_move, moves_leading
from tt_dynamo.passes.rewrite import (
    ADD,
    ANY,
    FLOATS,
    MUL,
    Rules,
    call,
    cast,
    emit,
    is_anything,
    is_number,
    once,
    variable,
)

x, weight, dims, eps = variable("x"), variable("weight"), variable("dims", is_anything), variable("eps", is_number)
SQUARE = call(aten.pow.Tensor_Scalar, x, 2) | call(aten.mul.Tensor, x, x)
TOTAL = call(ADD, call(aten.mean.dim, SQUARE, dims, True), eps)
NORM = call(MUL, x, call(aten.rsqrt.default, TOTAL)) | call(aten.div.Tensor, x, call(aten.sqrt.default, TOTAL))
RULES = Rules(last_first=True)


def _rms_norm(node: Node, x: Node, dims: list[int], eps: float, weight: Node | None = None) -> Node | None:
    shape = shape_of(x)
    if not dims or sorted(d % len(shape) for d in dims) != list(range(len(shape) - len(dims), len(shape))):
        return None
    if weight is not None and shape_of(weight) != shape[-len(dims) :]:
        return None
    width = math.prod(shape[-len(dims) :])
    x = _uncast(x)
    if len(dims) > 1:
        x = emit(node, aten.reshape.default, x, [*shape[: -len(dims)], width])
        weight = weight and emit(node, aten.reshape.default, weight, [width])
    y = emit(node, operators.rms_norm, x, weight, float(eps))
    if len(dims) > 1:
        y = emit(node, aten.reshape.default, y, list(shape))
    return y if dtype_of(y) == dtype_of(node) else emit(node, aten._to_copy.default, y, dtype=dtype_of(node))


def _uncast(x: Node) -> Node:
    """x before it was made float32 from a smaller float: the device computes either in float32."""
    widened = is_call(x, aten._to_copy.default) and dtype_of(x) == torch.float32 and dtype_of(x.args[0]) in FLOATS
    return x.args[0] if widened else x


def _move_down(node: Node, x: Node, weight: Node | None, eps: float) -> Node | None:
    """permute(rms_norm(move(x))) → rms_norm(permute(move(x))), where every row stays whole."""
    if not is_move(x) or not moves_leading(node):
        return None
    moved = emit(node, node.target, x, *node.args[1:])
    return emit(node.args[0], operators.rms_norm, moved, weight, eps)


RULES.add("rms_norm", call(MUL, once(cast(once(NORM))), weight) | cast(once(NORM)) | NORM, _rms_norm)
RULES.add(
    "rms_norm_of_moved",
    call(
        (aten.permute.default, aten.reshape.default),
        once(call(operators.rms_norm, x, variable("weight", is_anything), eps)),
        ANY,
    ),
    _move_down,
)


def fuse_rms_norm(graph: Graph, context: Context) -> int:
    """Fuse every norm that matches; returns how many places changed."""
    return RULES.apply(graph)
