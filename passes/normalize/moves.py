"""Moves of data and constants in the few spellings that the rest of the compiler knows.

Before   stack(a, b)    select_scatter(x, v, 1, 0)    pad(x, (-1, 2))         tril(x)            zeros_like(x)
After    cat(a', b')    cat(v', slice(x))             pad(slice(x), (0, 2))   where(mask, x, 0)  full(shape, 0)

Indices of gather and scatter, whose bounds the device does not check, are checked as eager torch checks them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dtype_of, is_call, shape_of
from tt_dynamo.passes.normalize.dtypes import FILLED, FILLED_WITH, fill
from tt_dynamo.passes.normalize.strides import BY_STRIDES
from tt_dynamo.passes.rewrite import Rules, argument, emit
from tt_dynamo.passes.rows import indices_of, movable

RULES = Rules()


def normalize_moves(graph: Graph, context: Context) -> int:
    """Apply the rules until nothing changes; returns how many nodes were rewritten."""
    return RULES.apply(graph, leave=constant_nodes)


def _full(like: Node, shape: Any, value: Any, dtype: torch.dtype) -> Node:
    return emit(like, aten.full.default, list(shape), value, dtype=dtype, device=torch.device("cpu"))


# --- values without dimensions ---------------------------------------------------------------------------------------

OF_ONE_ELEMENT = (
    aten.gather.default,
    aten.scatter.src,
    aten.scatter.value,
    aten.scatter.reduce,
    aten.scatter.value_reduce,
    aten.scatter_add.default,
    aten.scatter_reduce.two,
    aten.index_add.default,
    aten.index_copy.default,
    aten.index_fill.int_Scalar,
    aten.index_fill.int_Tensor,
    aten.index_select.default,
    aten.roll.default,
    aten.flip.default,
    aten.unfold.default,
)


@RULES.on(*OF_ONE_ELEMENT)
def _as_line(node: Node) -> Node | None:
    """An operation whose first operand has no dimension is one on a line of one element."""
    if shape_of(node.args[0]):
        return None
    value = node.args[3] if node.target is aten.index_fill.int_Tensor else None

    def line(argument: Any) -> Any:
        if not isinstance(argument, Node) or shape_of(argument) or argument is value:
            return argument
        return emit(node, aten.reshape.default, argument, [1])

    on_line = emit(node, node.target, *map(line, node.args), **node.kwargs)
    return emit(node, aten.reshape.default, on_line, list(shape_of(node)))


# --- joining and cutting ---------------------------------------------------------------------------------------------


@RULES.on(aten.stack.default)
def _stack(node: Node) -> Node:
    tensors, dim = node.args[0], argument(node, 1, 0) % len(shape_of(node))
    return emit(node, aten.cat.default, [emit(node, aten.unsqueeze.default, x, dim) for x in tensors], dim)


@RULES.on(aten.cat.default)
def _cat(node: Node) -> Node | None:
    """Without parts that hold nothing, and of one dtype."""
    tensors, dim, dtype = node.args[0], argument(node, 1, 0), dtype_of(node)
    parts = [x for x in tensors if math.prod(shape_of(x))]
    if not parts or (len(parts) == len(tensors) > 1 and all(dtype_of(x) == dtype for x in parts)):
        return None
    parts = [x if dtype_of(x) == dtype else emit(node, aten._to_copy.default, x, dtype=dtype) for x in parts]
    return emit(node, aten.cat.default, parts, dim) if len(parts) > 1 else emit(node, aten.clone.default, parts[0])


@RULES.on(aten.unsafe_split.Tensor, aten.unsafe_split_with_sizes.default)
def _split(node: Node) -> Node:
    whole = node.target is aten.unsafe_split.Tensor
    return emit(node, aten.split.Tensor if whole else aten.split_with_sizes.default, *node.args, **node.kwargs)


@RULES.on(aten.select_scatter.default)
def _select_scatter(node: Node) -> Node | None:
    x, values, dim, index = node.args
    dim, index = dim % len(shape_of(x)), index % shape_of(x)[dim]
    return _written(node, emit(node, aten.unsqueeze.default, values, dim), dim, index, index + 1)


@RULES.on(aten.slice_scatter.default)
def _slice_scatter(node: Node) -> Node | None:
    x, values = node.args[:2]
    dim = argument(node, 2, 0) % len(shape_of(x))
    size = shape_of(x)[dim]
    start, end, step = slice(*(argument(node, position) for position in (3, 4, 5))).indices(size)
    return _written(node, values, dim, start, max(start, end)) if step == 1 else None


def _written(node: Node, values: Node, dim: int, start: int, end: int) -> Node | None:
    """x with `values` from start to end along `dim`."""
    x, size = node.args[0], shape_of(node.args[0])[dim]
    if start == end:
        return emit(node, aten.clone.default, x)
    if dtype_of(values) != dtype_of(x):
        values = emit(node, aten._to_copy.default, values, dtype=dtype_of(x))
    before = [emit(node, aten.slice.Tensor, x, dim, 0, start)] if start else []
    after = [emit(node, aten.slice.Tensor, x, dim, end, size)] if end < size else []
    if not before and not after:
        return emit(node, aten.clone.default, values)
    return emit(node, aten.cat.default, [*before, values, *after], dim)


@RULES.on(aten.constant_pad_nd.default)
def _pad(node: Node) -> Node | None:
    """Padding by less than nothing cuts off; by nothing, it copies."""
    x, pad = node.args[0], list(node.args[1])
    if any(pad) and min(pad) >= 0:
        return None
    rank = len(shape_of(x))
    for i in range(0, len(pad), 2):
        dim, size = rank - 1 - i // 2, shape_of(x)[rank - 1 - i // 2]
        start, end = max(-pad[i], 0), size - max(-pad[i + 1], 0)
        if end <= start:
            return None
        if (start, end) != (0, size):
            x = emit(node, aten.slice.Tensor, x, dim, start, end)
    pad = [max(size, 0) for size in pad]
    if any(pad):
        return emit(node, aten.constant_pad_nd.default, x, pad, *node.args[2:], **node.kwargs)
    return emit(node, aten.clone.default, x)


@RULES.on(aten.im2col.default)
def _im2col(node: Node) -> Node | None:
    x, kernel, dilation, padding, stride = node.args
    if not any(padding) or not movable(node):
        return None
    x = emit(node, aten.constant_pad_nd.default, x, [padding[1], padding[1], padding[0], padding[0]])
    return emit(node, aten.im2col.default, x, kernel, dilation, [0, 0], stride)


# --- choices by position ---------------------------------------------------------------------------------------------


def _zero(node: Node) -> Node:
    return _full(node, [], 0, dtype_of(node))


@RULES.on(aten.tril.default, aten.triu.default)
def _triangle(node: Node) -> Node | None:
    x, shape = node.args[0], shape_of(node)
    if not movable(node):
        return None
    ones = _full(node, shape[-2:], True, torch.bool)
    mask = emit(node, node.target, ones, *node.args[1:], **node.kwargs)
    if dtype_of(node) == torch.bool:
        return emit(node, aten.logical_and.default, x, mask)
    return emit(node, aten.where.self, mask, x, _zero(node))


@RULES.on(aten.diag_embed.default)
def _diag_embed(node: Node) -> Node | None:
    """x along a diagonal of zeros: repeated over the whole plane and cut out of it."""
    x, rank = node.args[0], len(shape_of(node))
    offset, first, second = argument(node, 1, 0), argument(node, 2, -2) % rank, argument(node, 3, -1) % rank
    if not movable(node) or first > second:
        return None
    line = x
    if offset:  # element i stands in column i + max(offset, 0)
        line = emit(node, aten.constant_pad_nd.default, x, [max(offset, 0), max(-offset, 0)])
    lines = emit(node, aten.unsqueeze.default, line, -2)  # [..., 1, column]
    order = [d for d in range(rank) if d not in (first, second)] + [first, second]
    spread = emit(node, aten.permute.default, lines, [order.index(d) for d in range(rank)])
    line_mask = _full(node, [shape_of(x)[-1]], True, torch.bool)
    mask = emit(node, aten.diag_embed.default, line_mask, offset)
    plane = [shape_of(node)[d] if d in (first, second) else 1 for d in range(rank)]
    mask = emit(node, aten.reshape.default, mask, plane)
    return emit(node, aten.where.self, mask, spread, _zero(node))


# --- constants -------------------------------------------------------------------------------------------------------

RULES.on(*FILLED_WITH, *FILLED)(fill)


@RULES.on(aten.copy.default, aten.fill.Tensor)
def _copy(node: Node) -> Node | None:
    """The second operand in the shape and dtype of the first; not where its strides are what counts (keep_strides)."""
    x, values = node.args[:2]
    if is_call(x, aten.new_empty_strided.default) and any(n.target in BY_STRIDES for n in node.graph.nodes):
        return None
    if dtype_of(values) != dtype_of(x):
        values = emit(node, aten._to_copy.default, values, dtype=dtype_of(x))
    if shape_of(values) == shape_of(x):
        return emit(node, aten.clone.default, values)
    return emit(node, aten.expand.default, values, list(shape_of(x)))


# --- gather and scatter ----------------------------------------------------------------------------------------------


NEUTRAL = {"sum": 0, "prod": 1}


def _bounded(node: Node, index: Node) -> Node | None:
    """The index with its bounds checked; None where it is already, or the device is not asked."""
    x = node.args[0]
    if is_call(index, operators.bounded, operators.bounded_along) or not shape_of(x) or not math.prod(shape_of(index)):
        return None
    if not dtype_of(x).is_floating_point and dtype_of(x) != torch.bool:
        return None
    return emit(node, operators.bounded, index, shape_of(x)[node.args[1]])


@RULES.on(aten.gather.default, aten.scatter.src, aten.scatter_add.default, aten.scatter.reduce, aten.scatter_reduce.two)
def _check_bounds(node: Node) -> Node | None:
    x, dim, index, *rest = node.args
    checked = _bounded(node, index)
    if node.target is aten.scatter_reduce.two and rest[1] in NEUTRAL and not node.kwargs.get("include_self", True):
        # what x holds at these places is replaced by what changes nothing
        source = _full(node, shape_of(index), NEUTRAL[rest[1]], dtype_of(x))
        x = emit(node, aten.scatter.src, x, dim, checked or index, source)
        return emit(node, node.target, x, dim, checked or index, *rest)
    return checked and emit(node, node.target, x, dim, checked, *rest, **node.kwargs)


@RULES.on(aten.scatter.value, aten.scatter.value_reduce)
def _scatter_value(node: Node) -> Node | None:
    """One number into many places: a source full of it."""
    x, dim, index, value = node.args
    checked = _bounded(node, index)
    if checked is None:
        return None
    source = _full(node, shape_of(index), value, dtype_of(x))
    target = aten.scatter.src if node.target is aten.scatter.value else aten.scatter.reduce
    return emit(node, target, x, dim, checked, source, **node.kwargs)


@RULES.on(aten.index_fill.int_Scalar, aten.index_fill.int_Tensor)
def _index_fill(node: Node) -> Node | None:
    x, dim, index, value = node.args
    if not shape_of(x) or not shape_of(index):
        return None
    if not isinstance(value, Node):
        value = _full(node, [], value, dtype_of(x))
    if dtype_of(value) != dtype_of(x):
        return None
    return emit(node, aten.index_put.default, x, [None] * (dim % len(shape_of(x))) + [index], value)


@RULES.on(aten.index_add.default)
def _index_add(node: Node) -> Node | None:
    x, dim, index, source = node.args
    alpha = node.kwargs.get("alpha", 1)
    if not dtype_of(x).is_floating_point or dtype_of(source) != dtype_of(x) or not movable(source):
        return None
    if not shape_of(x) or not shape_of(index):
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
