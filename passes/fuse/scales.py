"""Let a linear's weights take what its result is multiplied by, and its bias what is added to it.

Before   q = heads(linear(x, w, b) * 0.125)             scale = 1 + linear(x, w, b)      y = linear(x, w, b) * gamma
After    q = heads(linear(x, w * 0.125, b * 0.125))     scale = linear(x, w, b + 1)      y = linear(x, w gamma, b gamma)

Before   step = linear(x, w) + beta                     After    step = linear(x, w, beta)

Before   y = linear(x * gamma, w, b)      After    y = linear(x, gamma[:, None] * w, b)

Whisper and OPT scale their queries before the heads are split, which is a kernel in every layer and keeps the query's
projection apart from those of key and value. Diffusion transformers make the weight of a norm as one plus a linear,
image models scale what a block adds (LayerScale), and state spaces keep the bias of their steps apart (Mamba). Moves of
data may stand between a linear and a number, a vector (gamma, beta, of parameters) lies along the linear's columns, or
along its rows where it comes before (the routers and gates of Gemma 3n); nothing else may read what is between.
"""

from collections.abc import Callable

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call, shape_of
from tt_dynamo.passes.attention.attention import split_scale
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
    """Fold every number and vector that is added to what a linear with constant weights gives; returns how many."""
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


def _add_number(node: Node, y: Node, number: float) -> Node | None:
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

    def scale(weight: Node, bias: Node | None, vector: Node) -> list[Node | None]:
        return [each and emit(node, aten.mul.Tensor, each, vector) for each in (weight, bias)]

    return _with_vector(node, y, gamma, scale)


def _add_vector(node: Node, y: Node, beta: Node) -> Node | None:
    """A vector that is added to a linear, whose bias [out] has its columns."""

    def add(weight: Node, bias: Node | None, vector: Node) -> list[Node | None]:
        return [weight, vector if bias is None else emit(node, aten.add.Tensor, bias, vector)]

    return _with_vector(node, y, beta, add)


def _with_vector(
    node: Node, y: Node, vector: Node, take: Callable[[Node, Node | None, Node], list[Node | None]]
) -> Node | None:
    """The linear that moves bring to y, with the weight and bias that take a vector along its columns."""
    columns = shape_of(y)[-1:]
    is_vector = is_constant(vector) and shape_of(vector) == (*[1] * (len(shape_of(vector)) - 1), *columns)
    linear = _linear_before(y, node) if is_vector and dtype_of(vector) == dtype_of(y) else None
    if linear is None or shape_of(node) != shape_of(y) or not all(map(moves_leading, chain_of(y))):
        return None
    vector = vector if len(shape_of(vector)) == 1 else emit(node, aten.reshape.default, vector, [*columns])
    weight, bias = (*linear.args[1:], None)[:2]
    taken = [each for each in take(weight, bias, vector) if each is not None]
    made = emit(node, operators.linear, linear.args[0], *taken)  # here, as the vector may be made behind it
    for move in reversed(chain_of(y)):
        made = emit(move, move.target, made, *move.args[1:], **move.kwargs)
    return made


def _scale_rows(node: Node, x: Node, gamma: Node, weight: Node, bias: Node | None = None) -> Node | None:
    """A vector, or a number in a tensor, times what a linear reads: its weight [in, out] has that one's rows."""
    shape, width = shape_of(gamma), shape_of(x)[-1]
    is_vector = shape in ((), (*[1] * (len(shape) - 1), width)) and len(shape) <= len(shape_of(x))
    alike = dtype_of(x) == dtype_of(gamma) == dtype_of(weight)
    if not is_vector or not alike or not all(map(is_constant, (gamma, weight))) or is_constant(x):
        return None
    rows = emit(node, aten.reshape.default, gamma, [width, 1]) if shape else gamma
    return emit(node, operators.linear, x, emit(node, aten.mul.Tensor, weight, rows), bias)


OFFSETS.add("add_number", call(ADD, variable("y"), variable("number", is_number)), _add_number)
OFFSETS.add("add_vector", call(aten.add.Tensor, variable("y"), variable("beta")), _add_vector)
SCALES.add("scale_columns", call(aten.mul.Tensor, variable("y"), variable("gamma")), _scale_columns)
scaled = once(call(aten.mul.Tensor, variable("x"), variable("gamma")))
bias = variable("bias", is_anything)
SCALES.add("scale_rows", call(operators.linear, scaled, variable("weight"), bias), _scale_rows)
