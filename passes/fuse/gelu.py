"""A gelu that is spelled out, exactly or by the tanh formula, back to one operation.

Before   y = x * 0.5 * (1 + erf(x / sqrt(2)))      y = 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))
After    y = gelu(x)                               y = gelu(x, approximate="tanh")

Source: Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415
"""

from __future__ import annotations

import math

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dtype_of, shape_of
from tt_dynamo.passes.rewrite import ADD, MUL, Pattern, Rules, call, emit, scaled, variable

x = variable("x")
CUBIC = call(ADD, x, scaled(call(aten.pow.Tensor_Scalar, x, 3), 0.044715))
EXACT = call(aten.erf.default, scaled(x, math.sqrt(0.5)))
TANH = call(aten.tanh.default, scaled(CUBIC, math.sqrt(2 / math.pi)))
RULES = Rules()


def _gated(inner: Pattern) -> Pattern:
    return call(MUL, scaled(x, 0.5), call(ADD, inner, 1))


def _gelu(node: Node, x: Node, approximate: str) -> Node | None:
    if shape_of(x) != shape_of(node) or dtype_of(x) != dtype_of(node):
        return None
    return emit(node, aten.gelu.default, x, approximate=approximate)


RULES.add("gelu", _gated(EXACT), lambda node, x: _gelu(node, x, "none"))
RULES.add("gelu_tanh", _gated(TANH), lambda node, x: _gelu(node, x, "tanh"))


def fuse_gelu(graph: Graph, context: Context) -> int:
    """Fuse every gelu that matches; returns how many."""
    return RULES.apply(graph)
