"""Moves of data and constants in the few spellings that the rest of the compiler knows.

Before   stack(a, b)    select_scatter(x, v, 1, 0)    pad(x, (-1, 2))         zeros_like(x)    exp(x[:0])
After    cat(a', b')    cat(v', slice(x))             pad(slice(x), (0, 2))   full(shape, 0)   full(shape, 0)

Indices of gather and scatter, whose bounds the device does not check, are checked as eager torch checks them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dtype_of, is_call, is_random, mutates, shape_of
from tt_dynamo.passes.normalize.strides import BY_STRIDES
from tt_dynamo.passes.rewrite import Rules, argument, arguments, as_dtype, emit
from tt_dynamo.passes.rows import indices_of, movable

RULES = Rules()


def normalize_moves(graph: Graph, context: Context) -> int:
    """Apply the rules until nothing changes; returns how many nodes were rewritten."""
    return RULES.apply(graph, leave=constant_nodes)


# --- values without dimensions ---------------------------------------------------------------------------------------


@RULES.on(
    aten.gather.default, aten.scatter.src, aten.scatter.value, aten.scatter.reduce, aten.scatter.value_reduce,
    aten.scatter_add.default, aten.scatter_reduce.two, aten.index_add.default, aten.index_copy.default,
    aten.index_select.default, aten.roll.default, aten.flip.default, aten.unfold.default,
)  # fmt: skip
def _as_line(node: Node) -> Node | None:
    """An operation whose first operand has no dimension is one on a line of one element."""
    if shape_of(node.args[0]):
        return None
    points = {x: emit(node, aten.reshape.default, x, [1]) for x in node.all_input_nodes if not shape_of(x)}
    args = [points.get(x, x) if isinstance(x, Node) else x for x in node.args]
    return emit(node, aten.reshape.default, emit(node, node.target, *args, **node.kwargs), list(shape_of(node)))


# --- joining and cutting ---------------------------------------------------------------------------------------------


@RULES.on(aten.stack.default)
def _stack(node: Node) -> Node:
    tensors, dim = node.args[0], argument(node, 1, 0) % len(shape_of(node))
    return emit(node, aten.cat.default, [emit(node, aten.unsqueeze.default, x, dim) for x in tensors], dim)


@RULES.on(aten.cat.default)
def _cat(node: Node) -> Node | None:
    """Without parts that hold nothing, and of one dtype."""
    tensors, dim = node.args[0], argument(node, 1, 0)
    parts = [as_dtype(x, dtype_of(node), node) for x in tensors if math.prod(shape_of(x))]
    if not parts or parts == list(tensors) and len(parts) > 1:
        return None
    return emit(node, aten.cat.default, parts, dim) if len(parts) > 1 else emit(node, aten.clone.default, parts[0])


@RULES.on(aten.select_scatter.default)
def _select_scatter(node: Node) -> Node:
    x, values, dim, index = node.args
    start, values = index % shape_of(x)[dim], emit(node, aten.unsqueeze.default, values, dim)
    return emit(node, aten.slice_scatter.default, x, values, dim, start, start + 1)


@RULES.on(aten.slice_scatter.default)
def _slice_scatter(node: Node) -> Node | None:
    """Values in the place of neighbours stand between what x holds before and behind them."""
    x, values, dim, *bounds = arguments(node).values()
    dim, size = dim % len(shape_of(x)), shape_of(x)[dim]
    start, end, step = slice(*bounds).indices(size)
    if step != 1:
        return None
    before = emit(node, aten.slice.Tensor, x, dim, 0, start)
    behind = emit(node, aten.slice.Tensor, x, dim, max(start, end), size)
    return emit(node, aten.cat.default, [before, as_dtype(values, dtype_of(x), node), behind], dim)


@RULES.on(aten.constant_pad_nd.default)
def _pad(node: Node) -> Node | None:
    """Padding by less than nothing cuts off; by nothing, it copies."""
    x, pad, number = arguments(node).values()
    if not any(pad):
        return emit(node, aten.clone.default, x)
    if min(pad) >= 0:
        return None
    for place, (before, behind) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        dim = len(shape_of(x)) - place
        x = emit(node, aten.slice.Tensor, x, dim, max(-before, 0), shape_of(x)[dim] - max(-behind, 0))
    return emit(node, aten.constant_pad_nd.default, x, [max(size, 0) for size in pad], number)


@RULES.on(aten.im2col.default)
def _im2col(node: Node) -> Node | None:
    x, kernel, dilation, padding, stride = node.args
    if not any(padding) or not movable(node):
        return None
    x = emit(node, aten.constant_pad_nd.default, x, [padding[1], padding[1], padding[0], padding[0]])
    return emit(node, aten.im2col.default, x, kernel, dilation, [0, 0], stride)


# --- constants -------------------------------------------------------------------------------------------------------

NUMBERS = {
    aten.zeros_like.default: 0, aten.ones_like.default: 1, aten.empty_like.default: 0,
    aten.new_zeros.default: 0, aten.new_ones.default: 1, aten.new_empty.default: 0,
}  # fmt: skip


def _full(like: Node, shape: Sequence[int], number: float, dtype: torch.dtype) -> Node:
    return emit(like, aten.full.default, list(shape), number, dtype=dtype, device=torch.device("cpu"))


def _is_static(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor) and all(isinstance(size, int) for size in shape_of(node))


@RULES.on(*NUMBERS, aten.full_like.default, aten.fill.Scalar, aten.new_full.default)
def _constant(node: Node) -> Node | None:
    """What is like a tensor in its shape alone does not depend on that tensor."""
    number = NUMBERS[node.target] if node.target in NUMBERS else node.args[-1]
    is_known = _is_static(node) and not isinstance(number, Node)
    return _full(node, shape_of(node), number, dtype_of(node)) if is_known else None


@RULES.on()
def _without_elements(node: Node) -> Node | None:
    """What has no elements depends on nothing."""
    if not _is_static(node) or 0 not in shape_of(node) or not node.all_input_nodes or mutates(node) or is_random(node):
        return None
    return _full(node, shape_of(node), 0, dtype_of(node))


@RULES.on(aten.copy.default, aten.fill.Tensor)
def _copy(node: Node) -> Node | None:
    """The second operand in the shape and dtype of the first; not where its strides are what counts (keep_strides)."""
    x, values = node.args[:2]
    if any(user.target in BY_STRIDES for user in node.users):
        return None
    values = as_dtype(values, dtype_of(x), node)
    if shape_of(values) == shape_of(x):
        return emit(node, aten.clone.default, values)
    return emit(node, aten.expand.default, values, list(shape_of(x)))


# --- gather and scatter ----------------------------------------------------------------------------------------------

NEUTRAL = {"sum": 0, "prod": 1}


@RULES.on(aten.gather.default, aten.scatter.src, aten.scatter_add.default, aten.scatter.reduce, aten.scatter_reduce.two)
def _check_bounds(node: Node) -> Node | None:
    x, dim, index, *rest = node.args
    on_device = dtype_of(x).is_floating_point or dtype_of(x) == torch.bool
    if not on_device or is_call(index, operators.bounded, operators.bounded_along) or not math.prod(shape_of(index)):
        return None
    checked = emit(node, operators.bounded, index, shape_of(x)[dim])
    return emit(node, node.target, x, dim, checked, *rest, **node.kwargs)


@RULES.on(aten.scatter_reduce.two)
def _leave_out_self(node: Node) -> Node | None:
    """What x holds at these places is replaced by what changes nothing."""
    x, dim, index, source, reduce = node.args
    if reduce not in NEUTRAL or node.kwargs.get("include_self", True):
        return None
    neutral = _full(node, shape_of(index), NEUTRAL[reduce], dtype_of(x))
    return emit(node, node.target, emit(node, aten.scatter.src, x, dim, index, neutral), dim, index, source, reduce)


@RULES.on(aten.scatter.value, aten.scatter.value_reduce)
def _scatter_value(node: Node) -> Node:
    """One number into many places: a source full of it."""
    x, dim, index, number = node.args
    target = aten.scatter.src if node.target is aten.scatter.value else aten.scatter.reduce
    return emit(node, target, x, dim, index, _full(node, shape_of(index), number, dtype_of(x)), **node.kwargs)


@RULES.on(aten.index_fill.int_Scalar, aten.index_fill.int_Tensor)
def _index_fill(node: Node) -> Node | None:
    x, dim, index, value = node.args
    value = value if isinstance(value, Node) else _full(node, [], value, dtype_of(x))
    if dtype_of(value) != dtype_of(x) or not shape_of(x):
        return None
    return emit(node, aten.index_put.default, x, [None] * (dim % len(shape_of(x))) + [index], value)


@RULES.on(aten.index_add.default)
def _index_add(node: Node) -> Node | None:
    x, dim, index, source = node.args
    alpha = node.kwargs.get("alpha", 1)
    if not dtype_of(x).is_floating_point or dtype_of(source) != dtype_of(x) or not movable(source):
        return None
    if not shape_of(index):
        return None
    source = source if alpha == 1 else emit(node, aten.mul.Tensor, source, alpha)
    return _added(node, dim % len(shape_of(x)), index, source)


def _added(node: Node, dim: int, index: Node, source: Node) -> Node:
    """x with the slices of source added at the positions index [n] along `dim`."""
    x = node.args[0]
    index = emit(node, operators.bounded_along, index, shape_of(x)[dim], dim, list(shape_of(source)))
    return emit(node, aten.scatter_add.default, x, dim, index, source)


@RULES.on(aten.index_put.default)
def _index_put(node: Node) -> Node | None:
    """One number wherever a mask says so is a choice; sums at the places of one index are those of index_add."""
    x, indices, values = node.args[:3]
    tensors = [index for index in indices if index is not None]
    if len(tensors) != 1 or dtype_of(values) != dtype_of(x) or not movable(values) or not movable(node):
        return None
    dim, index, shape = indices.index(tensors[0]), tensors[0], shape_of(x)
    accumulate = argument(node, 3, False)
    if dtype_of(index) == torch.bool and not accumulate and math.prod(shape_of(values)) == 1:
        around = [1] * dim + list(shape_of(index)) + [1] * (len(shape) - dim - len(shape_of(index)))
        mask = emit(node, aten.reshape.default, index, around)
        return emit(node, aten.where.self, mask, emit(node, aten.reshape.default, values, []), x)
    if accumulate and dtype_of(x).is_floating_point and indices_of(node) and len(shape_of(index)) == 1:
        numbers = emit(node, operators.index_numbers, [index], [shape[dim]])
        source = [*shape[:dim], *shape_of(index), *shape[dim + 1 :]]
        return _added(node, dim, numbers, emit(node, aten.expand.default, values, source))
    return None
