"""A gelu that is spelled out, exactly or by the tanh formula, back to one operation.

Before   y = x * 0.5 * (1 + erf(x / sqrt(2)))      y = 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))
After    y = gelu(x)                               y = gelu(x, approximate="tanh")

Source: Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415
"""

from __future__ import annotations

import math
from typing import Any

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, insert, is_call, replace, shape_of

PRODUCTS = (aten.mul.Tensor, aten.mul.Scalar)
QUOTIENTS = (aten.div.Tensor, aten.div.Scalar)
SUMS = (aten.add.Tensor, aten.add.Scalar)


def fuse_gelu(graph: Graph, context: Context) -> int:
    """Fuse every gelu that matches; returns how many."""
    fused = 0
    for node in list(graph.nodes):
        if not is_call(node, *PRODUCTS) or not node.users:
            continue
        found = _gelu(node)
        if found is None:
            continue
        x, approximate = found
        with graph.inserting_before(node):
            gelu = insert(graph, aten.gelu.default, (x,), {"approximate": approximate}, like=node)
        if shape_of(gelu) == shape_of(node) and dtype_of(gelu) == dtype_of(node):
            replace(node, gelu)
            fused += 1
    if fused:
        dead_code(graph)
    return fused


def _gelu(node: Node) -> tuple[Node, str] | None:
    """x and the formula of a product of x, a half and 1 + f(x), in either order."""
    for half, gate in (node.args, node.args[::-1]):
        x, factor = _scaled(half)
        inner = _plus_one(gate)
        if isinstance(x, Node) and isinstance(half, Node) and inner is not None and _is(factor, 0.5):
            if is_call(inner, aten.erf.default) and _is_root(inner.args[0], x):
                return x, "none"
            if is_call(inner, aten.tanh.default) and _is_cubic(inner.args[0], x):
                return x, "tanh"
    return None


def _is(number: Any, expected: float) -> bool:
    return isinstance(number, (int, float)) and math.isclose(number, expected, rel_tol=1e-5)


def _scaled(node: Any) -> tuple[Any, float]:
    """x and c of x * c or x / (1 / c) with a number c."""
    if is_call(node, *PRODUCTS, *QUOTIENTS) and not node.kwargs and isinstance(node.args[1], (int, float)):
        x, number = node.args
        return x, number if is_call(node, *PRODUCTS) else 1.0 / number if number else math.inf
    return node, 1.0


def _plus_one(node: Any) -> Any:
    plain = is_call(node, *SUMS) and not node.kwargs
    return node.args[0] if plain and _is(node.args[1], 1.0) else None


def _is_root(node: Any, x: Node) -> bool:
    """Whether a node is x / sqrt(2)."""
    source, factor = _scaled(node)
    return source is x and _is(factor, math.sqrt(0.5))


def _is_cubic(node: Any, x: Node) -> bool:
    """Whether a node is sqrt(2 / pi) * (x + 0.044715 * x ** 3)."""
    total, factor = _scaled(node)
    if not _is(factor, math.sqrt(2 / math.pi)) or not is_call(total, *SUMS) or total.kwargs:
        return False
    for one, other in (total.args, total.args[::-1]):
        cube, small = _scaled(other)
        if one is x and _is(small, 0.044715) and is_call(cube, aten.pow.Tensor_Scalar) and cube.args == (x, 3):
            return True
    return False
