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
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, insert, is_call, only_user, replace, shape_of
from tt_dynamo.passes.movement import is_move, moves_leading

PRODUCTS = (aten.mul.Tensor, aten.mul.Scalar)
SUMS = (aten.add.Tensor, aten.add.Scalar)
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def fuse_rms_norm(graph: Graph, context: Context) -> int:
    """Fuse every norm that matches; returns how many."""
    fused = 0
    for node in list(graph.nodes):
        found = _normalized(node)
        if found is None:
            continue
        x, dims, eps = found
        last, weight = _weighted(node, len(dims))
        with graph.inserting_before(last):
            replace(last, _rms_norm(graph, x, dims, weight, eps, last))
        fused += 1
    for norm in graph.find_nodes(op="call_function", target=operators.rms_norm):
        fused += _move_down(graph, norm)
    if fused:
        dead_code(graph)
    return fused


def _move_down(graph: Graph, norm: Node) -> bool:
    """permute(rms_norm(move(x))) → rms_norm(permute(move(x))), where every row stays whole."""
    x, weight, eps = norm.args
    user = only_user(norm)
    if user is None or not is_move(x) or not moves_leading(user):
        return False
    with graph.inserting_before(user):
        moved = insert(graph, user.target, (x, *user.args[1:]), like=user)
        replace(user, insert(graph, operators.rms_norm, (moved, weight, eps), like=norm))
    graph.erase_node(norm)
    return True


def _normalized(node: Node) -> tuple[Node, list[int], float] | None:
    """x, the dimensions and eps of a node that is x over its root mean square; None where it is anything else."""
    if not node.users or not is_call(node, aten.mul.Tensor, aten.div.Tensor):
        return None
    if is_call(node, aten.div.Tensor):
        pairs = [(node.args[0], _argument_of(node.args[1], aten.sqrt.default))]
    else:
        a, b = node.args
        pairs = [(x, _argument_of(root, aten.rsqrt.default)) for x, root in ((a, b), (b, a))]
    for x, total in pairs:
        found = _mean_square(total)
        if isinstance(x, Node) and found is not None and found[0] is x and shape_of(node) == shape_of(x):
            return (_uncast(x), *found[1:])
    return None


def _argument_of(node: object, target: object) -> Node | None:
    return node.args[0] if isinstance(node, Node) and is_call(node, target) else None


def _mean_square(total: Node | None) -> tuple[Node, list[int], float] | None:
    """x, the trailing dimensions and eps of mean(x ** 2) + eps."""
    if total is None or not is_call(total, *SUMS) or total.kwargs:
        return None
    mean, eps = total.args
    if not isinstance(eps, (int, float)) or not is_call(mean, aten.mean.dim) or mean.kwargs.get("dtype"):
        return None
    square, dims, *keepdim = mean.args
    rank = len(shape_of(mean))
    if not dims or keepdim != [True] or sorted(d % rank for d in dims) != list(range(rank - len(dims), rank)):
        return None
    if is_call(square, aten.pow.Tensor_Scalar) and square.args[1] == 2:
        return square.args[0], list(dims), float(eps)
    if is_call(square, aten.mul.Tensor) and square.args[0] is square.args[1]:
        return square.args[0], list(dims), float(eps)
    return None


def _uncast(x: Node) -> Node:
    """x before it was made float32 from a smaller float: the device computes either in float32."""
    if is_call(x, aten._to_copy.default) and dtype_of(x) == torch.float32 and dtype_of(x.args[0]) in FLOATS:
        return x.args[0]
    return x


def _weighted(node: Node, trailing: int) -> tuple[Node, Node | None]:
    """The last node of the norm, and its weight: a product with a vector of the width may follow, after a cast."""
    last = node
    user = only_user(last)
    if user is not None and is_call(user, aten._to_copy.default) and dtype_of(user) in FLOATS:
        last, user = user, only_user(user)
    if user is not None and is_call(user, *PRODUCTS):
        for x, weight in (user.args, user.args[::-1]):
            if x is last and isinstance(weight, Node) and shape_of(weight) == shape_of(node)[-trailing:]:
                return user, weight
    return last, None


def _rms_norm(graph: Graph, x: Node, dims: list[int], weight: Node | None, eps: float, like: Node) -> Node:
    def emit(target, *args, **kwargs):
        return insert(graph, target, args, kwargs, like=like)

    shape = shape_of(x)
    width = math.prod(shape[-len(dims) :])
    if len(dims) > 1:
        x = emit(aten.reshape.default, x, [*shape[: -len(dims)], width])
        weight = weight and emit(aten.reshape.default, weight, [width])
    y = emit(operators.rms_norm, x, weight, eps)
    if len(dims) > 1:
        y = emit(aten.reshape.default, y, list(shape))
    return y if dtype_of(y) == dtype_of(like) else emit(aten._to_copy.default, y, dtype=dtype_of(like))
