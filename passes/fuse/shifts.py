"""Norms of constant scale and shift, computed once for many: after a join, in the norm before, in the linear behind.

Before   whole = addcmul(a, x, b);   y = whole[..., 32:64] + addcmul(c, z, d)
After    whole = addcmul(a + [0 …, c, 0 …], x, b);   y = addcmul(whole[..., 32:64], z, d)

Before   cat([x, addcmul(a, y, b), addcmul(c, z, d)], -1)       After   addcmul([0, a, c], cat([x, y, z]), [1, b, d])

Before   linear(addcmul(a, x, b), w, bias)                       After   linear(x, b[:, None] * w, bias + a @ w)

Shifts and scales, a to d, are vectors of parameters along the last dimension. Speaker recognition (ECAPA-TDNN) has its
norms behind activations, where no convolution before them can take them, and between the scales of a Res2Net.
"""

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call, needed_for, only_user, shape_of
from tt_dynamo.passes.movement import cut_of, joined_along
from tt_dynamo.passes.rewrite import Rules, call, emit, is_constant, once, variable

RULES = Rules()


def fold_shifts(graph: Graph, context: Context) -> int:
    """Rewrite every such sum, join and linear; returns how many."""
    return RULES.apply(graph)


def _is_vector(value: object) -> bool:
    return isinstance(value, Node) and is_constant(value) and shape_of(value)[-1:] == (value.meta["val"].numel(),)


def _is_norm(node: Node) -> bool:
    is_plain = is_call(node, aten.addcmul.default) and not node.kwargs
    return is_plain and all(map(_is_vector, node.args[::2])) and shape_of(node.args[1]) == shape_of(node)


def _in_the_norm_before(node: Node, part: Node, shift: Node, x: Node, scale: Node) -> Node | None:
    """The part alone is read by the sum, and shares no columns with what else is read of its norm."""
    whole, start = cut_of(part, -1) or (part, 0)
    stop, width = start + shape_of(part)[-1], shape_of(whole)[-1]
    if whole is part or not _is_norm(whole) or set(part.users) != {node} or shape_of(x) != shape_of(part):
        return None
    if part.target is not aten.slice.Tensor or stop - start != shape_of(shift)[-1]:
        return None
    if dtype_of(shift) != dtype_of(whole):
        return None
    for user in whole.users:
        if user is not part:
            cut = cut_of(user, -1) if is_call(user, aten.slice.Tensor) else None
            if cut is None or not (cut[1] >= stop or cut[1] + shape_of(user)[-1] <= start):
                return None
    for made in needed_for(shift, lambda other: other < whole) if whole < shift else []:
        whole.prepend(made)
    with node.graph.inserting_before(whole):
        padded = emit(whole, aten.constant_pad_nd.default, shift, [start, width - stop])
        whole.args = (emit(whole, aten.add.Tensor, whole.args[0], padded), *whole.args[1:])
    return emit(node, aten.addcmul.default, part, x, scale)


@RULES.on(aten.cat.default)
def _behind_a_join(node: Node) -> Node | None:
    parts = node.args[0]
    norms = {part: norm for part in parts if (norm := _norm_of(part)) is not None}
    if joined_along(node) != -1 or len(norms) < 2 or len({dtype_of(part) for part in parts}) > 1:
        return None

    def vector(part: Node, at: int, otherwise: float) -> Node:
        if part in norms:
            return emit(node, aten.reshape.default, norms[part].args[at], [shape_of(part)[-1]])
        options = {"dtype": dtype_of(part), "device": torch.device("cpu")}
        return emit(node, aten.full.default, [shape_of(part)[-1]], otherwise, **options)

    def operand(part: Node) -> Node:
        x = norms[part].args[1] if part in norms else part
        return x if shape_of(x) == shape_of(part) else emit(node, aten.reshape.default, x, list(shape_of(part)))

    shift = emit(node, aten.cat.default, [vector(part, 0, 0.0) for part in parts])
    scale = emit(node, aten.cat.default, [vector(part, 2, 1.0) for part in parts])
    joined = emit(node, aten.cat.default, [operand(part) for part in parts], -1)
    return emit(node, aten.addcmul.default, shift, joined, scale)


def _norm_of(part: Node) -> Node | None:
    """The norm that is joined alone, in this shape or in another one of the same channels."""
    norm = part.args[0] if is_call(part, aten.reshape.default) and only_user(part) is not None else part
    if not _is_norm(norm) or only_user(norm) is None or shape_of(norm)[-1] != shape_of(part)[-1]:
        return None
    return norm if all(shape_of(vector)[-1:] == shape_of(norm)[-1:] for vector in norm.args[::2]) else None


def _in_the_linear_behind(
    node: Node, shift: Node, x: Node, scale: Node, weight: Node, bias: Node | None = None
) -> Node | None:
    rows, width = shape_of(weight)[0], shape_of(x)[-1]
    alike = dtype_of(x) == dtype_of(shift) == dtype_of(scale) == dtype_of(weight)
    if rows != width or not alike or not _is_norm(node.args[0]) or shape_of(shift)[-1] != width:
        return None
    scale, shift = (emit(node, aten.reshape.default, each, [-1, 1]) for each in (scale, shift))
    moved = emit(node, aten.sum.dim_IntList, emit(node, aten.mul.Tensor, shift, weight), [0])
    bias = moved if bias is None else emit(node, aten.add.Tensor, moved, bias)
    return emit(node, operators.linear, x, emit(node, aten.mul.Tensor, scale, weight), bias)


x, shift, scale = variable("x"), variable("shift", _is_vector), variable("scale", _is_vector)
weight, bias = variable("weight", is_constant), variable("bias", is_constant)
norm = call(aten.addcmul.default, shift, x, scale)
RULES.add("in_the_norm_before", call(aten.add.Tensor, variable("part"), norm), _in_the_norm_before)
RULES.add("in_the_linear_behind", call(operators.linear, once(norm), weight, bias), _in_the_linear_behind)
