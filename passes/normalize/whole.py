"""Operations that arrive whole, in the spelling that the rest of the compiler knows.

Before   linear(x, w, bias)            matmul(x, w)   softmax(x, -1, float32)   attention(q, k, v)
After    linear(x, permute(w), bias)   linear(x, w)   softmax(x, -1)            attention(q, k, v, None, 0.0, False)
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from torch.fx import Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, dtype_of, is_call, shape_of
from tt_dynamo.passes.rewrite import argument, emit


def _whole_linear(node: Node) -> Node | None:
    """linear(x, w [out, in], b) → linear(x, permute(w), b), of at least one row."""
    x, weight, *bias = node.args
    if len(shape_of(weight)) != 2:
        return emit(node, aten.matmul.default, x, emit(node, aten.unsqueeze.default, weight, -1))
    rows = x if len(shape_of(x)) > 1 else emit(node, aten.reshape.default, x, [1, *shape_of(x)])
    product = emit(node, operators.linear, rows, emit(node, aten.permute.default, weight, [1, 0]), *bias)
    return product if rows is x else emit(node, aten.reshape.default, product, list(shape_of(node)))


def _matmul(node: Node) -> Node | None:
    """A product of matrices with equal leading dimensions, or a linear where all of them meet one matrix."""
    a, b = node.args
    ranks = len(shape_of(a)), len(shape_of(b))
    if 1 in ranks:
        return _vector_product(node)
    if len(shape_of(a)) > 1 and math.prod(shape_of(b)[:-2]) == 1 and ranks[0] >= ranks[1]:
        matrix = b if ranks[1] == 2 else emit(node, aten.reshape.default, b, list(shape_of(b)[-2:]))
        return emit(node, operators.linear, a, matrix)
    leading = list(shape_of(node)[:-2])
    whole = [x if list(shape_of(x)[:-2]) == leading else _led(x, leading) for x in (a, b)]
    return None if whole == [a, b] else emit(node, aten.matmul.default, *whole)


def _led(x: Node, leading: list[int]) -> Node:
    """x [..., rows, columns] with these leading dimensions."""
    return emit(x, aten.expand.default, x, [*leading, *shape_of(x)[-2:]])


def _vector_product(node: Node) -> Node:
    a, b = node.args
    ranks = len(shape_of(a)), len(shape_of(b))
    if ranks == (1, 1):
        return emit(node, aten.dot.default, a, b)
    if ranks == (2, 1):
        return emit(node, aten.mv.default, a, b)
    a = a if ranks[0] > 1 else emit(node, aten.reshape.default, a, [1, *shape_of(a)])
    b = b if ranks[1] > 1 else emit(node, aten.reshape.default, b, [*shape_of(b), 1])
    return emit(node, aten.reshape.default, emit(node, aten.matmul.default, a, b), list(shape_of(node)))


def _softmax(node: Node) -> Node | None:
    """Of an operand in the dtype that is asked for."""
    x, dim, *dtype = node.args
    if not dtype:
        return None
    if dtype_of(x) != dtype_of(node):
        x = emit(node, aten._to_copy.default, x, dtype=dtype_of(node))
    return emit(node, node.target, x, dim)


def _norm(node: Node) -> Node | None:
    """With all of its arguments but the last, which says how it is computed."""
    args = (*node.args[:2], argument(node, 2), argument(node, 3), argument(node, 4, 1e-5))
    return None if node.args == args and not node.kwargs else emit(node, node.target, *args)


def _attention(node: Node) -> Node | None:
    """With all of its arguments; enable_gqa only where heads are shared."""
    query, key, value = node.args[:3]
    args = (query, key, value, argument(node, 3), argument(node, 4, 0.0), argument(node, 5, False))
    grouped = {"enable_gqa": True} if shape_of(query)[-3:-2] != shape_of(key)[-3:-2] else {}
    kwargs = {"scale": node.kwargs.get("scale"), **grouped}
    return None if (node.args, node.kwargs) == (args, kwargs) else emit(node, node.target, *args, **kwargs)


def _first_result(node: Node) -> Node | None:
    """In training, operations with extra results that nothing reads become the operation with one."""
    call, index = node.args
    if index != 0 or any(user.op != "call_function" or user.args[1] != 0 for user in call.users):
        return None
    if is_call(call, aten.native_layer_norm.default):
        return emit(node, aten.layer_norm.default, *call.args)
    if is_call(call, aten._scaled_dot_product_flash_attention_for_cpu.default) and not argument(call, 3, 0.0):
        mask, scale = call.kwargs.get("attn_mask"), call.kwargs.get("scale")
        args = (*call.args[:3], mask, 0.0, argument(call, 4, False))
        grouped = {"enable_gqa": True} if shape_of(args[0])[1] != shape_of(args[1])[1] else {}
        return emit(node, aten.scaled_dot_product_attention.default, *args, scale=scale, **grouped)
    return None


WHOLE: dict[Any, Callable[[Node], Node | None]] = {
    operator.getitem: _first_result,
    aten.linear.default: _whole_linear,
    aten.matmul.default: _matmul,
    aten.softmax.int: _softmax,
    aten.log_softmax.int: _softmax,
    aten.layer_norm.default: _norm,
    aten.group_norm.default: _norm,
    aten.scaled_dot_product_attention.default: _attention,
}
