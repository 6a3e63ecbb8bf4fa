"""Reductions in one spelling each, with operands of the dtype that they are computed in.

Before   sum(x, dtype=float32)      any(x)           count_nonzero(x)                    max(x, 0)[0]   max(x, 0)[1]
After    sum(_to_copy(x, float32))  any(ne(x, 0))    sum(ne(x, 0), [], dtype=int64)      amax(x, [0])   argmax(x, 0)

Booleans are numbers on the device, so its lowerings cannot tell them from floats: a reduction of booleans that gives
integers says so by its `dtype`, and no reduction of floats keeps one. any and all read booleans only.
"""

from __future__ import annotations

import operator

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call
from tt_dynamo.passes.rewrite import Rules, emit

SUMS = frozenset({
    aten.sum.default, aten.sum.dim_IntList, aten.nansum.default, aten.mean.default, aten.mean.dim, aten.prod.default,
    aten.prod.dim_int, aten.cumsum.default, aten.cumprod.default,
})  # fmt: skip
LOGIC = frozenset({
    aten.any.default, aten.any.dim, aten.any.dims, aten.all.default, aten.all.dim, aten.all.dims,
})  # fmt: skip
COUNTS = frozenset({aten.count_nonzero.default, aten.count_nonzero.dim_IntList})
EXTREMES = {
    aten.max.dim: (aten.amax.default, aten.argmax.default),
    aten.min.dim: (aten.amin.default, aten.argmin.default),
}


RULES = Rules()


def canonicalize_reductions(graph: Graph, context: Context) -> int:
    """Respell each reduction that is not so yet; returns how many were."""
    return RULES.apply(graph)


@RULES.on(*SUMS)
def _in_own_dtype(node: Node) -> Node | None:
    x, wanted = node.args[0], dtype_of(node)
    given = node.kwargs.get("dtype")
    kwargs = {key: value for key, value in node.kwargs.items() if key != "dtype"}
    if dtype_of(x) == torch.bool and wanted in (torch.int64, torch.int32):
        if node.target is aten.nansum.default:
            dim, keepdim = (*node.args[1:], None, False)[:2]
            return emit(node, aten.sum.dim_IntList, x, dim or [], keepdim, dtype=wanted)
        if given is None:
            return emit(node, node.target, *node.args, **kwargs, dtype=wanted)
        return None
    if given is None or not (wanted.is_floating_point or dtype_of(x).is_floating_point):
        return None  # integers alone would be summed in int64
    if dtype_of(x) != wanted:
        x = emit(node, aten._to_copy.default, x, dtype=wanted)
    kept = kwargs if wanted.is_floating_point else node.kwargs
    return emit(node, node.target, x, *node.args[1:], **kept)


def _booleans(x: Node, like: Node) -> Node:
    return x if dtype_of(x) == torch.bool else emit(like, aten.ne.Scalar, x, 0)


@RULES.on(*LOGIC)
def _of_booleans(node: Node) -> Node | None:
    x, *rest = node.args
    if dtype_of(x) == torch.bool or dtype_of(node) != torch.bool:
        return None
    return emit(node, node.target, _booleans(x, node), *rest, **node.kwargs)


@RULES.on(*COUNTS)
def _count(node: Node) -> Node:
    x, *dims = node.args
    dim = dims[0] if dims else node.kwargs.get("dim")
    dim = [] if dim is None else [dim] if isinstance(dim, int) else dim
    return emit(node, aten.sum.dim_IntList, _booleans(x, node), dim, dtype=torch.int64)


@RULES.on(operator.getitem)
def _one_of_two(node: Node) -> Node | None:
    """Where nothing reads both the extremes and their places."""
    call, index = node.args
    if not is_call(call, *EXTREMES):
        return None
    x, dim, keepdim = (*call.args, False)[:3]
    if any(user.args[1] != index for user in call.users) or (index == 1 and dtype_of(x) == torch.bool):
        return None  # torch has no place of the largest boolean
    extreme, place = EXTREMES[call.target]
    if index == 1:
        return emit(node, place, x, dim, keepdim)
    return emit(node, extreme, x, [dim], keepdim)
