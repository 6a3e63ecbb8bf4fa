"""Fuse an operation with what alone reads it, an activation, a norm or a scale: TTNN launches one kernel for both.

Before   y = gelu(linear(x, w, b))     y = relu(conv2d(x, w, b))    z = relu(x + y)
After    y = linear(x, w, b, "gelu")   y = conv2d(x, w, b, "relu")  z = add_activation(x, y, "relu")

Before   y = layer_norm(x + r, [n], w, b, eps)
After    y = add_layer_norm(x, r, w, b, eps)

Before   y = silu(g) * x                            y = (x + r) / 2**0.5
After    y = activated_product(g, x, "silu")        y = scaled_sum(x, r, 0.5**0.5)

Activations of linears may be computed in float32, as the kernel does, where casts bring them back (Gemma 3n's routers).
Sums are fused where both operands have one shape and dtype. A sum that is read again stays: TTNN's norm returns only
the norm. Products and scaled sums have rows of a tile at least: columns so few may be positions, which keep float32 in
sums and products alone. A linear must be told the core grid, or TTNN launches two kernels. No convolution takes in a
hardswish.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.rewrite import (
    ANY,
    DIV,
    MUL,
    Pattern,
    Rules,
    call,
    cast,
    emit,
    is_anything,
    is_number,
    once,
    variable,
)

LINEARS, IMAGES, NORMS, ARITHMETIC = Rules(), Rules(), Rules(), Rules()
PLAIN = ("relu", "silu", "tanh", "sigmoid")
OF_OPERANDS = ("relu", "silu")
ACTIVATIONS: dict[str, Callable[[Pattern], Pattern]] = {
    **{name: partial(call, getattr(aten, name).default) for name in PLAIN},
    "gelu": partial(call, aten.gelu.default),
    "gelu_tanh": partial(call, aten.gelu.default, approximate="tanh"),
    "relu6": lambda of: call(aten.hardtanh.default, of, 0, 6),
}
anything = [variable(f"argument_{index}", is_anything) for index in range(8)]
SUM = call(aten.add.Tensor, variable("x"), variable("y"))


def _with_activation(node: Node, target: Any, name: str, **operands: Any) -> Node | None:
    fits = target is not operators.add_activation or _are_alike(**operands)
    return emit(node, target, *operands.values(), name) if fits else None


def _cast_activation(node: Node, name: str, **operands: Any) -> Node | None:
    """An activation in a linear's own dtype, computed in another: the linear's kernel rounds once, behind it."""
    linear = emit(node, operators.linear, *operands.values(), name)
    return linear if dtype_of(linear) == dtype_of(node) else None


def _layer_norm(node: Node, x: Node, y: Node, **options: Any) -> Node | None:
    fits = _are_alike(x, y) and len(node.args[1]) == 1
    return emit(node, operators.add_layer_norm, x, y, *options.values()) if fits else None


def _product(node: Node, name: str, x: Node, y: Node) -> Node | None:
    return emit(node, operators.activated_product, x, y, name) if _are_rows(x, y) else None


def _scaled_sum(node: Node, x: Node, y: Node, number: float, is_divisor: bool = False) -> Node | None:
    scale = (1 / number if number else math.inf) if is_divisor else float(number)
    fits = _are_rows(x, y) and dtype_of(x) == dtype_of(node) and abs(scale) <= torch.finfo(dtype_of(node)).max
    return emit(node, operators.scaled_sum, x, y, scale) if fits else None


def _are_rows(x: Node, y: Node) -> bool:
    return _are_alike(x, y) and shape_of(x)[-1:] >= (TILE,)


def _are_alike(x: Node, y: Node) -> bool:
    return shape_of(x) == shape_of(y) and dtype_of(x) == dtype_of(y) and dtype_of(x).is_floating_point


TABLE = (
    (LINEARS, operators.linear, call(operators.linear, *anything[:3]), (*PLAIN, "gelu", "gelu_tanh")),
    (IMAGES, operators.conv2d, call(operators.conv2d, *anything), (*PLAIN, "relu6")),
    (IMAGES, operators.conv3d, call(operators.conv3d, *anything), ("relu", "silu")),
    (IMAGES, operators.add_activation, SUM, (*PLAIN, "relu6")),
)
for rules, target, first, names in TABLE:
    for name in names:
        build = partial(_with_activation, target=target, name=name)
        rules.add(f"{name} of {target}", ACTIVATIONS[name](once(first)), build)
        if rules is LINEARS:
            exact = partial(_cast_activation, name=name)
            rules.add(f"{name} in float32", cast(once(ACTIVATIONS[name](once(cast(once(first)))))), exact)
NORMS.add("add_layer_norm", call(aten.layer_norm.default, once(SUM), ANY, *anything[:3], ANY), _layer_norm)
for name in OF_OPERANDS:
    activated = once(ACTIVATIONS[name](variable("x")))
    ARITHMETIC.add(
        f"product with {name}", call(aten.mul.Tensor, activated, variable("y")), partial(_product, name=name)
    )
number = variable("number", is_number)
ARITHMETIC.add("scaled_sum", call(MUL, once(SUM), number), _scaled_sum)
ARITHMETIC.add("divided_sum", call(DIV, once(SUM), number), partial(_scaled_sum, is_divisor=True))


def fuse_linear_activation(graph: Graph, context: Context) -> int:
    """Fuse every linear with its activation; returns how many."""
    return LINEARS.apply(graph)


def fuse_image_activation(graph: Graph, context: Context) -> int:
    """Fuse every convolution and every sum of images with its activation; returns how many."""
    return IMAGES.apply(graph)


def fuse_residual_norm(graph: Graph, context: Context) -> int:
    """Fuse every sum with its layer norm; returns how many."""
    return NORMS.apply(graph)


def fuse_arithmetic(graph: Graph, context: Context) -> int:
    """Fuse every product with the activation of an operand, and every sum with its scale; returns how many."""
    return ARITHMETIC.apply(graph)
