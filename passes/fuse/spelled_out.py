"""Norms and gelus that models spell out, back to one operation.

Before   y = x * rsqrt(mean(x ** 2, -1, keepdim) + eps) * weight
After    y = rms_norm(x, weight, eps)

Before   y = (x - mean(x, -1, keepdim)) * rsqrt(var(x, -1, keepdim) + eps) * weight + bias
         y = rms_norm(x - mean(x, -1, keepdim), weight, eps) + bias
After    y = layer_norm(x, weight, bias, eps)

Before   y = layer_norm(x) * (1 + scale) + shift
After    y = layer_norm(x, 1 + scale, shift)      where scale and shift [1, 1, width] are the same for all rows

Before   y = x / clamp_min(vector_norm(x, 2, -1, keepdim), eps)            that is, F.normalize
After    y = rms_norm(x, 1 / sqrt(width), eps² / width)       the same but where the norm is about eps, within sqrt(2)

Before   y = x * 0.5 * (1 + erf(x / sqrt(2)))      y = 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))
After    y = gelu(x)                               y = gelu(x, approximate="tanh")

Models write the square as a power or a product, the root as rsqrt, as pow(..., -0.5) (Gemma 3n, Gemma 4) or as a
division by sqrt. They cast to float32 and back around a norm, or around the root alone (T5, DeepSeek-V4). The weight
may be any vector of x's width, such as Gemma's 1 + weight, and be multiplied first or last. Trailing dimensions are
one when flattened. What of the chain something else reads (training saves the root) stays for that reader. A norm of
heads comes after the move that brings them to the front, so that the projection before it still sees where they go.

Source of gelu: Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415
"""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call, shape_of
from tt_dynamo.passes import rewrite
from tt_dynamo.passes.movement import is_move, moves_leading
from tt_dynamo.passes.rewrite import ADD, ANY, MUL, Rules, call, cast, emit, once, scaled, variable

NORMS, LAYER_NORMS, GELUS = Rules(last_first=True), Rules(last_first=True), Rules()
x, weight, eps = variable("x"), variable("weight"), variable("eps", rewrite.is_number)
SQUARE = call(aten.pow.Tensor_Scalar, cast(x), 2) | call(aten.mul.Tensor, cast(x), cast(x))
TOTAL = call(ADD, call(aten.mean.dim, SQUARE, variable("dims", rewrite.is_anything), True), eps)
ROOT = call(aten.rsqrt.default, TOTAL) | call(aten.pow.Tensor_Scalar, TOTAL, -0.5)
NORM = call(MUL, x, cast(ROOT)) | call(aten.div.Tensor, x, cast(call(aten.sqrt.default, TOTAL)))
RMS_NORM = call(operators.rms_norm, x, variable("weight", rewrite.is_anything), eps)
CENTERED = call(aten.sub.Tensor, x, call(aten.mean.dim, x, variable("dims", rewrite.is_anything), True))
VARIANCE = call(aten.var.correction, x, variable("spread", rewrite.is_anything), correction=0, keepdim=True)
DEVIATION = call(aten.rsqrt.default, call(ADD, VARIANCE, eps))
LAYER_NORM = (
    call(operators.rms_norm, once(CENTERED), variable("weight", rewrite.is_anything), eps)
    | call(MUL, CENTERED, DEVIATION)
    | call(aten.div.Tensor, CENTERED, call(aten.sqrt.default, call(ADD, VARIANCE, eps)))
)
LENGTH = call(aten.linalg_vector_norm.default, x, 2, variable("dims", rewrite.is_anything), True)
LONGER = call((aten.clamp_min.default, aten.clamp.default), LENGTH, eps)
NORMALIZED = call(aten.div.Tensor, x, call(aten.expand.default, LONGER, ANY) | LONGER)
CUBIC = call(ADD, x, scaled(call(aten.pow.Tensor_Scalar, x, 3), 0.044715))
EXACT = call(aten.erf.default, scaled(x, math.sqrt(0.5)))
TANH = call(aten.tanh.default, scaled(CUBIC, math.sqrt(2 / math.pi)))


def _rms_norm(node: Node, x: Node, dims: list[int], eps: float, weight: Node | None = None) -> Node | None:
    shape, count = shape_of(x), len(dims or ())
    if not count or sorted(d % len(shape) for d in dims) != list(range(len(shape) - count, len(shape))):
        return None
    if weight is not None and shape_of(weight) != shape[-count:]:
        return None

    def flat(value: Node) -> Node:
        whole = [*shape_of(value)[:-count], math.prod(shape[-count:])]
        return value if count == 1 else emit(node, aten.reshape.default, value, whole)

    if is_call(x, aten._to_copy.default) and dtype_of(x) == torch.float32 and dtype_of(x.args[0]) in rewrite.FLOATS:
        x = x.args[0]  # the device computes either in float32
    y = emit(node, operators.rms_norm, flat(x), weight and flat(weight), float(eps))
    y = y if count == 1 else emit(node, aten.reshape.default, y, list(shape))
    return y if dtype_of(y) == dtype_of(node) else emit(node, aten._to_copy.default, y, dtype=dtype_of(node))


def _normalize(node: Node, x: Node, dims: list[int], eps: float) -> Node | None:
    if [dim % len(shape_of(x)) for dim in dims] != [len(shape_of(x)) - 1] or dtype_of(x) != dtype_of(node) or eps <= 0:
        return None
    width = shape_of(x)[-1]
    options = {"dtype": dtype_of(x), "device": torch.device("cpu")}
    weight = emit(node, aten.full.default, [width], width**-0.5, **options)
    return emit(node, operators.rms_norm, x, weight, eps * eps / width)


def _layer_norm(
    node: Node, x: Node, dims: list[int], eps: float, weight: Node | None = None, spread: Sequence[int] | None = (-1,)
) -> Node | None:
    shape = shape_of(x)
    if any([d % len(shape) for d in over or ()] != [len(shape) - 1] for over in (dims, spread)):
        return None
    if weight is not None and shape_of(weight) != shape[-1:]:
        return None
    operands = [value and _before_cast(value, dtype_of(node)) for value in (x, weight)]
    if len({dtype_of(value) for value in operands if value}) > 1:
        return None  # a weight of more digits than x
    x, weight = operands
    y = emit(node, aten.layer_norm.default, x, [shape[-1]], weight, None, float(eps))
    return rewrite.as_dtype(y, dtype_of(node), node)


def _before_cast(value: Node, dtype: torch.dtype) -> Node:
    """What a cast to float32 reads, where it is of `dtype`."""
    is_cast = is_call(value, aten._to_copy.default) and dtype_of(value) == torch.float32
    return value.args[0] if is_cast and dtype_of(value.args[0]) == dtype else value


def _affine_layer_norm(
    node: Node, x: Node, normalized: list[int], weight: Node | None, eps: float, bias: Node | None = None
) -> Node | None:
    if not all(_is_vector(value, normalized, x) for value in (weight, bias) if value is not None):
        return None
    weight, bias = (value and _vector(node, value) for value in (weight, bias))
    return emit(node, aten.layer_norm.default, x, normalized, weight, bias, eps)


def _weighted_rms_norm(node: Node, x: Node, eps: float, weight: Node) -> Node | None:
    is_vector = _is_vector(weight, [shape_of(x)[-1]], x)
    return emit(node, operators.rms_norm, x, _vector(node, weight), eps) if is_vector else None


def _is_vector(value: Node, normalized: list[int], x: Node) -> bool:
    """Whether `value` has x's dtype and one number for each place along the last dimension, the same for all rows."""
    shape, alike = shape_of(value), dtype_of(value) == dtype_of(x)
    return alike and len(shape) <= len(shape_of(x)) and shape == (*[1] * (len(shape) - 1), *normalized)


def _vector(node: Node, value: Node) -> Node:
    return value if len(shape_of(value)) == 1 else emit(node, aten.reshape.default, value, [shape_of(value)[-1]])


def _move_down(node: Node, x: Node, weight: Node | None, eps: float) -> Node | None:
    """permute(rms_norm(move(x))) → rms_norm(permute(move(x))), where every row stays whole.

    A norm of heads that are about to be repeated, by a fifth dimension, stays a norm of heads.
    """
    if not is_move(x) or not moves_leading(node) or len(shape_of(node)) > max(len(shape_of(x)), 4):
        return None
    y = emit(node.args[0], operators.rms_norm, emit(node, node.target, x, *node.args[1:]), weight, eps)
    return rewrite.as_dtype(y, dtype_of(node), node)


def _move_layer_norm_down(
    node: Node, x: Node, normalized: list[int], weight: Node | None, bias: Node | None, eps: float
) -> Node | None:
    """The same of a layer norm (Persimmon)."""
    if len(normalized) > 1 or not is_move(x) or not moves_leading(node):
        return None
    moved = emit(node.args[0], node.target, x, *node.args[1:])
    return emit(node.args[0], aten.layer_norm.default, moved, normalized, weight, bias, eps)


def _gelu(node: Node, x: Node, approximate: str) -> Node | None:
    return emit(node, aten.gelu.default, x, approximate=approximate) if dtype_of(x) == dtype_of(node) else None


WEIGHTED = (
    call(MUL, once(cast(once(NORM))), weight)
    | call(MUL, once(call(MUL, weight, x)), cast(ROOT))
    | call(MUL, x, once(call(MUL, cast(ROOT), weight)))
)
NORMS.add("rms_norm", WEIGHTED | cast(once(NORM)) | NORM, _rms_norm)
NORMS.add("normalize", NORMALIZED, _normalize)
NORMED = once(cast(once(RMS_NORM)))
unweighted = once(call(operators.rms_norm, x, None, eps))
NORMS.add("rms_norm_weight", call(MUL, unweighted, weight), _weighted_rms_norm)
NORMS.add("rms_norm_of_moved", call((aten.permute.default, aten.reshape.default), NORMED, ANY), _move_down)
LAYER_NORMS.add("layer_norm", cast(once(LAYER_NORM)) | LAYER_NORM, _layer_norm)
normalized, some_weight = variable("normalized", rewrite.is_anything), variable("weight", rewrite.is_anything)
plain = once(call(aten.layer_norm.default, x, normalized, None, None, eps, ANY))
weighted = once(call(aten.layer_norm.default, x, normalized, some_weight, None, eps, ANY))
LAYER_NORMS.add("layer_norm_weight", call(MUL, plain, weight), _affine_layer_norm)
LAYER_NORMS.add("layer_norm_bias", call(ADD, weighted, variable("bias")), _affine_layer_norm)
some_bias = variable("bias", rewrite.is_anything)
whole = once(call(aten.layer_norm.default, x, normalized, some_weight, some_bias, eps, ANY))
LAYER_NORMS.add(
    "layer_norm_of_moved", call((aten.permute.default, aten.reshape.default), whole, ANY), _move_layer_norm_down
)
for name, gate in (("none", EXACT), ("tanh", TANH)):
    GELUS.add(f"gelu_{name}", call(MUL, scaled(x, 0.5), call(ADD, gate, 1)), partial(_gelu, approximate=name))


def fuse_rms_norm(graph: Graph, context: Context) -> int:
    """Fuse every norm that matches; returns how many places changed."""
    return NORMS.apply(graph)


def fuse_layer_norm(graph: Graph, context: Context) -> int:
    """Fuse every layer norm that matches; returns how many places changed."""
    return LAYER_NORMS.apply(graph)


def fuse_gelu(graph: Graph, context: Context) -> int:
    """Fuse every gelu that matches; returns how many."""
    return GELUS.apply(graph)
