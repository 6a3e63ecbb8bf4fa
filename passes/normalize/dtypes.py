"""Give elementwise operations and reductions operands of the dtype that they compute in, in one spelling each.

Before   mul(tokens, x)                      add(mask, other)          sum(x, dtype=float32)       any(x)
After    mul(_to_copy(tokens, float32), x)   logical_or(mask, other)   sum(_to_copy(x, float32))   any(ne(x, 0))

torch promotes integers that meet floats inside the operation; as a cast of its own, placement may put it on either
side. Booleans stay: they are 0.0 and 1.0 on the device, which is what torch promotes them to. So its lowerings cannot
tell them from floats: a reduction of booleans that gives integers says so by its `dtype`, and no reduction of floats
keeps one. any and all read booleans only. A number in a tensor of no dimension, as DeBERTa divides scores by
`sqrt(tensor(width))`, becomes a number, which passes know how to carry into weights and attention.
"""

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call, is_literal, literal_value, shape_of, values_of
from tt_dynamo.passes.rewrite import Rules, argument, as_dtype, emit

RULES = Rules()


def promote_operands(graph: Graph, context: Context) -> int:
    """Insert the casts, and respell sums of booleans and reductions; returns how many nodes changed."""
    return RULES.apply(graph)


@RULES.on()
def _cast_operands(node: Node) -> Node | None:
    """Cast the integers among the operands of an elementwise operation whose result is a float."""
    if torch.Tag.pointwise not in getattr(node.target, "tags", ()) or not isinstance(node.meta["val"], torch.Tensor):
        return None
    if not dtype_of(node).is_floating_point or is_call(node, aten._to_copy.default):
        return None
    integers = filter(_is_integer, node.all_input_nodes)
    casts = {operand: as_dtype(operand, dtype_of(node), node) for operand in integers}
    if not casts:
        return None
    args, kwargs = map_arg((node.args, node.kwargs), lambda operand: casts.get(operand, operand))
    return emit(node, node.target, *args, **kwargs)


def _is_integer(node: Node) -> bool:
    return any(not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool) for x in values_of(node))


@RULES.on(aten.mul.Tensor, aten.div.Tensor, aten.add.Tensor, aten.sub.Tensor)
def _take_number(node: Node) -> Node | None:
    """x * tensor(2.0) → x * 2.0, of a literal in x's own dtype; x may stand behind it where they commute."""
    if node.kwargs or not all(isinstance(operand, Node) for operand in node.args):
        return None
    for x, other in (node.args, node.args[::-1]):
        is_second = other is node.args[1] or is_call(node, aten.mul.Tensor, aten.add.Tensor)
        if not is_second or shape_of(other) or is_literal(x) or not shape_of(x) or not is_literal(other):
            continue
        if not dtype_of(x) == dtype_of(other) == dtype_of(node) or not dtype_of(x).is_floating_point:
            continue
        value = literal_value(other)
        if value is not None and bool(value.isfinite()):
            return emit(node, node.target, x, value.item())
    return None


@RULES.on(aten.add.Tensor)
def _join_booleans(node: Node) -> Node | None:
    """A sum of two booleans is their disjunction."""
    if dtype_of(node) != torch.bool or node.kwargs or not all(isinstance(operand, Node) for operand in node.args):
        return None
    return emit(node, aten.logical_or.default, *node.args)


@RULES.on(
    aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim, aten.prod.default, aten.prod.dim_int,
    aten.cumsum.default, aten.cumprod.default,
)  # fmt: skip
def _sum(node: Node) -> Node | None:
    x, *rest = node.args
    wanted = dtype_of(node)
    if dtype_of(x) != torch.bool or wanted not in (torch.int64, torch.int32):
        if node.kwargs.get("dtype") is None or not (wanted.is_floating_point or dtype_of(x).is_floating_point):
            return None  # integers alone would be summed in int64
        x = as_dtype(x, wanted, node)
    kwargs = {} if wanted.is_floating_point else {"dtype": wanted}
    return None if (x, kwargs) == (node.args[0], node.kwargs) else emit(node, node.target, x, *rest, **kwargs)


@RULES.on(aten.any.default, aten.any.dim, aten.any.dims, aten.all.default, aten.all.dim, aten.all.dims)
def _logic(node: Node) -> Node | None:
    x, *rest = node.args
    if dtype_of(x) == torch.bool or dtype_of(node) != torch.bool:
        return None
    return emit(node, node.target, emit(node, aten.ne.Scalar, x, 0), *rest, **node.kwargs)


@RULES.on(aten.count_nonzero.default, aten.count_nonzero.dim_IntList)
def _count(node: Node) -> Node:
    x, dims = node.args[0], argument(node, 1)
    if node.target is aten.count_nonzero.default:
        dims = [] if dims is None else [dims]
    x = x if dtype_of(x) == torch.bool else emit(node, aten.ne.Scalar, x, 0)
    return emit(node, aten.sum.dim_IntList, x, dims, dtype=torch.int64)
