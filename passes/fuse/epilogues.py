"""Fuse an operation with the activation or the norm that alone reads it: TTNN launches one kernel for both.

Before   y = gelu(linear(x, w, b))     y = relu(conv2d(x, w, b))    z = relu(x + y)
After    y = linear(x, w, b, "gelu")   y = conv2d(x, w, b, "relu")  z = add_activation(x, y, "relu")

Before   y = layer_norm(x + r, [n], w, b, eps)
After    y = add_layer_norm(x, r, w, b, eps)

Sums are fused where both operands have one shape and dtype. A sum that is read again stays: TTNN's norm returns only
the norm. A linear must be told the core grid, or TTNN launches two kernels. No convolution takes in a hardswish.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, shape_of
from tt_dynamo.passes.rewrite import ANY, Pattern, Rules, call, emit, is_anything, once, variable

LINEARS, IMAGES, NORMS = Rules(), Rules(), Rules()
x, y = variable("x"), variable("y")
weight, bias, eps = (variable(name, is_anything) for name in ("weight", "bias", "eps"))

ACTIVATIONS: dict[str, Callable[[Pattern], Pattern]] = {
    "relu": partial(call, aten.relu.default),
    "silu": partial(call, aten.silu.default),
    "tanh": partial(call, aten.tanh.default),
    "sigmoid": partial(call, aten.sigmoid.default),
    "gelu": partial(call, aten.gelu.default),
    "gelu_tanh": partial(call, aten.gelu.default, approximate="tanh"),
    "relu6": lambda of: call(aten.hardtanh.default, of, 0, 6),
}
PLAIN = ("relu", "silu", "tanh", "sigmoid")


def _linear(node: Node, x: Node, weight: Node, bias: Node | None, name: str) -> Node:
    return emit(node, operators.linear, x, weight, bias, name)


def _convolution(node: Node, name: str) -> Node:
    return emit(node, operators.conv2d, *node.all_input_nodes[0].args, name)


def _sum(node: Node, x: Node, y: Node, name: str) -> Node | None:
    fits = _are_alike(x, y) and dtype_of(node).is_floating_point
    return emit(node, operators.add_activation, x, y, name) if fits else None


def _layer_norm(node: Node, x: Node, y: Node, weight: Node | None, bias: Node | None, eps: float) -> Node | None:
    fits = _are_alike(x, y) and len(node.args[1]) == 1
    return emit(node, operators.add_layer_norm, x, y, weight, bias, eps) if fits else None


def _are_alike(x: Node, y: Node) -> bool:
    return shape_of(x) == shape_of(y) and dtype_of(x) == dtype_of(y)


TABLE = (
    (LINEARS, call(operators.linear, x, weight, bias), (*PLAIN, "gelu", "gelu_tanh"), _linear),
    (IMAGES, call(operators.conv2d, *[ANY] * 8), (*PLAIN, "relu6"), _convolution),
    (IMAGES, call(aten.add.Tensor, x, y), (*PLAIN, "relu6"), _sum),
)
for rules, first, names, build in TABLE:
    for name in names:
        rules.add(f"{build.__name__[1:]}_{name}", ACTIVATIONS[name](once(first)), partial(build, name=name))
NORMS.add(
    "add_layer_norm",
    call(aten.layer_norm.default, once(call(aten.add.Tensor, x, y)), ANY, weight, bias, eps, ANY),
    _layer_norm,
)


def fuse_linear_activation(graph: Graph, context: Context) -> int:
    """Fuse every linear with its activation; returns how many."""
    return LINEARS.apply(graph)


def fuse_image_activation(graph: Graph, context: Context) -> int:
    """Fuse every convolution and every sum of images with its activation; returns how many."""
    return IMAGES.apply(graph)


def fuse_residual_norm(graph: Graph, context: Context) -> int:
    """Fuse every sum with its layer norm; returns how many."""
    return NORMS.apply(graph)
