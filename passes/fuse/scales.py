"""Let a linear's weights take what its result is multiplied by, and its bias what is added to it.

Before   q = heads(linear(x, w, b) * 0.125)             scale = 1 + linear(x, w, b)      y = linear(x, w, b) * gamma
After    q = heads(linear(x, w * 0.125, b * 0.125))     scale = linear(x, w, b + 1)      y = linear(x, w gamma, b gamma)

Before   y = linear(x * gamma, w, b)      After    y = linear(x, gamma[:, None] * w, b)

Whisper and OPT scale their queries before the heads are split, which is a kernel in every layer and keeps the query's
projection apart from those of key and value. Diffusion transformers make the weight of a norm as one plus a linear,
and image models scale what a block adds (LayerScale). Moves of data may stand between a linear and a number, a vector
(gamma, of parameters) lies along the linear's columns, or along its rows where it comes before (the routers and gates
of Gemma 3n); nothing else may read what is between.
"""

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call, shape_of
from tt_dynamo.passes.fuse.attention import split_scale
from tt_dynamo.passes.movement import chain_of, is_move, moves_leading
from tt_dynamo.passes.rewrite import (
    ADD,
    DIV,
    MUL,
    Rules,
    call,
    emit,
    is_anything,
    is_constant,
    is_number,
    once,
    variable,
)

SCALES, OFFSETS = Rules(), Rules()


def fold_scales(graph: Graph, context: Context) -> int:
    """Fold every number and vector that multiplies what a linear with constant weights gives; returns how many."""
    return SCALES.apply(graph)


def fold_offsets(graph: Graph, context: Context) -> int:
    """Fold every number that is added to what a linear with constant weights gives; returns how many."""
    return OFFSETS.apply(graph)


def _linear_before(x: Node, node: Node) -> Node | None:
    """The linear of constant weights that moves alone bring to x, which `node` alone reads."""
    linear = x
    while is_move(linear) and len(linear.users) == 1:
        linear = linear.args[0]
    is_plain = is_call(linear, operators.linear) and len(linear.users) == 1 and len(linear.args) <= 3
    if x is node or not is_plain or dtype_of(x) != dtype_of(node) or not all(map(is_constant, linear.args[1:])):
        return None
    return linear


@SCALES.on(*MUL, *DIV)
def _fold(node: Node) -> Node | None:
    x, scale = split_scale(node)
    linear = _linear_before(x, node)
    if linear is None:
        return None
    with node.graph.inserting_before(linear):
        weights = [weight and emit(linear, aten.mul.Tensor, weight, scale) for weight in linear.args[1:]]
    linear.args = (linear.args[0], *weights)
    return x


def _add_to_bias(node: Node, y: Node, number: float) -> Node | None:
    linear = _linear_before(y, node)
    if linear is None:
        return None
    weight, bias = (*linear.args[1:], None)[:2]
    with node.graph.inserting_before(linear):
        if bias is None:
            options = {"dtype": dtype_of(linear), "device": torch.device("cpu")}
            bias = emit(linear, aten.full.default, [shape_of(weight)[-1]], number, **options)
        else:
            bias = emit(linear, aten.add.Tensor, bias, number)
        linear.args = (linear.args[0], weight, bias)
    return y


def _scale_columns(node: Node, y: Node, gamma: Node) -> Node | None:
    """A vector times a linear, whose weight [in, out] and bias [out] have its columns."""
    columns = shape_of(y)[-1:]
    is_vector = is_constant(gamma) and shape_of(gamma) == (*[1] * (len(shape_of(gamma)) - 1), *columns)
    linear = _linear_before(y, node) if is_vector and dtype_of(gamma) == dtype_of(y) else None
    if linear is None or shape_of(node) != shape_of(y) or not all(map(moves_leading, chain_of(y))):
        return None
    vector = gamma if len(shape_of(gamma)) == 1 else emit(node, aten.reshape.default, gamma, [*columns])
    weights = [weight and emit(linear, aten.mul.Tensor, weight, vector) for weight in linear.args[1:]]
    scaled = emit(linear, operators.linear, linear.args[0], *weights)  # here, as the vector may be made behind it
    for move in reversed(chain_of(y)):
        scaled = emit(move, move.target, scaled, *move.args[1:], **move.kwargs)
    return scaled


def _scale_rows(node: Node, x: Node, gamma: Node, weight: Node, bias: Node | None = None) -> Node | None:
    """A vector, or a number in a tensor, times what a linear reads: its weight [in, out] has that one's rows."""
    shape, width = shape_of(gamma), shape_of(x)[-1]
    is_vector = shape in ((), (*[1] * (len(shape) - 1), width)) and len(shape) <= len(shape_of(x))
    alike = dtype_of(x) == dtype_of(gamma) == dtype_of(weight)
    if not is_vector or not alike or not all(map(is_constant, (gamma, weight))) or is_constant(x):
        return None
    rows = emit(node, aten.reshape.default, gamma, [width, 1]) if shape else gamma
    return emit(node, operators.linear, x, emit(node, aten.mul.Tensor, weight, rows), bias)


OFFSETS.add("add_to_bias", call(ADD, variable("y"), variable("number", is_number)), _add_to_bias)
SCALES.add("scale_columns", call(aten.mul.Tensor, variable("y"), variable("gamma")), _scale_columns)
scaled = once(call(aten.mul.Tensor, variable("x"), variable("gamma")))
bias = variable("bias", is_anything)
SCALES.add("scale_rows", call(operators.linear, scaled, variable("weight"), bias), _scale_rows)
