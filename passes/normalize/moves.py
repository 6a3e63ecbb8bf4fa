"""Moves of data and constants in the few spellings that the rest of the compiler knows.

Before   stack(a, b)    select_scatter(x, v, 1, 0)    pad(x, (-1, 2))         zeros_like(x)    exp(x[:0])
After    cat(a', b')    cat(v', slice(x))             pad(slice(x), (0, 2))   full(shape, 0)   full(shape, 0)

Indices of gather and scatter, whose bounds the device does not check, are checked as eager torch checks them.
Before that, operations that read memory as it lies get their operand as eager torch lays it out:

Before   y = as_strided(v, size, stride)                  z = view_as_complex(u)
After    y = as_strided(copy(new_empty_strided(m, …), m), size, stride, offset)
         z = view_as_complex(copy(new_empty_strided(u, …), u))

m is the value whose memory v views. Every other operation sees elements alone, so passes may drop copies, and transfers
may bring values in any strides. Inputs of the graph lie as they were traced and are read as they are.
"""

import math
from collections.abc import Sequence

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dtype_of, is_call, is_random, mutates, shape_of
from tt_dynamo.ir.strides import extent_of, shares_memory
from tt_dynamo.ir.torch_internals import storage_of
from tt_dynamo.passes.movement import numbered, numbered_memory, run
from tt_dynamo.passes.normalize.found_rows import as_found
from tt_dynamo.passes.rewrite import Rules, argument, arguments, as_dtype, emit
from tt_dynamo.passes.rows import LIMIT, among, indices_of, literal, movable

STRIDES, RULES = Rules(), Rules()


def keep_strides(graph: Graph, context: Context) -> int:
    """Lay out the operand of every operation that reads memory as it lies; returns how many."""
    return STRIDES.apply(graph)


def normalize_moves(graph: Graph, context: Context) -> int:
    """Apply the rules until nothing changes; returns how many nodes were rewritten."""
    return RULES.apply(graph, leave=constant_nodes)


@STRIDES.on(aten.view.dtype, aten.view_as_complex.default, aten.as_strided_scatter.default)
def _read_laid_out(node: Node) -> Node | None:
    x, *rest = node.args
    if x.op == "placeholder" or x.target is aten.copy.default:
        return None
    return emit(node, node.target, _laid_out(x, node), *rest, **node.kwargs)


@STRIDES.on(aten.as_strided.default)
def _read_whole_memory(node: Node) -> Node | None:
    """as_strided counts from the start of its operand's memory: let it read that, whichever view it was given."""
    x, size, stride, *rest = node.args
    owner = _owner(x)
    if owner.target is aten.copy.default or (owner.op == "placeholder" and owner is x):
        return None
    memory = owner if owner.op == "placeholder" else _laid_out(owner, node)
    offset = rest[0] if rest else node.kwargs.get("storage_offset")
    offset = x.meta["val"].storage_offset() if offset is None else offset
    return emit(node, node.target, memory, size, stride, offset)


def _owner(node: Node) -> Node:
    """The value that made the memory which `node` views."""
    while node.op == "call_function" and node.all_input_nodes and _same_memory(node.all_input_nodes[0], node):
        node = node.all_input_nodes[0]
    return node


def _same_memory(one: Node, other: Node) -> bool:
    a, b = one.meta.get("val"), other.meta.get("val")
    return hasattr(a, "untyped_storage") and storage_of(a) == storage_of(b) != 0


def _laid_out(x: Node, like: Node) -> Node:
    """x in memory of its own with the strides of its fake value."""
    memory = emit(like, aten.new_empty_strided.default, x, list(shape_of(x)), list(x.meta["val"].stride()))
    return emit(like, aten.copy.default, memory, x)


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


@RULES.on(aten.slice_scatter.default, aten.select_scatter.default, aten.diagonal_scatter.default)
def _scatter_into_windows(node: Node) -> Node | None:
    """Where elements of x share memory, so do those of the result, and what is written shows in all of them."""
    x, values = node.args[:2]
    held, written = x.meta["val"], values.meta["val"]
    extent = extent_of(held)
    if not shares_memory(held) or extent + written.numel() > LIMIT:
        return None
    read = numbered_memory(held, extent).as_strided(held.shape, held.stride())
    behind = numbered(written.shape, torch.int64) + held.numel()
    return among(node, x, as_dtype(values, dtype_of(x), node), literal(node, run(node, {x: read, values: behind})))


@RULES.on(aten.slice_scatter.default, aten.select_scatter.default)
def _slice_scatter(node: Node) -> Node | None:
    """Values in the place of neighbours stand between what x holds before and behind them."""
    x, values, dim, *bounds = arguments(node).values()
    dim, size = dim % len(shape_of(x)), shape_of(x)[dim]
    if node.target is aten.select_scatter.default:
        values, bounds = emit(node, aten.unsqueeze.default, values, dim), [bounds[0] % size, bounds[0] % size + 1]
    start, end, step = slice(*bounds).indices(size)
    if step != 1 or shares_memory(x.meta["val"]):
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
    if any(user.target in STRIDES.by_target for user in node.users):
        return None
    values = as_dtype(values, dtype_of(x), node)
    if shape_of(values) == shape_of(x):
        return emit(node, aten.clone.default, values)
    return emit(node, aten.expand.default, values, list(shape_of(x)))


SCATTERS = (
    aten.gather.default, aten.scatter.src, aten.scatter_add.default, aten.scatter.reduce, aten.scatter_reduce.two,
)  # fmt: skip


@RULES.on(
    *SCATTERS, aten.index_add.default, aten.index_copy.default, aten.index_fill.int_Scalar, aten.index_select.default,
    aten.roll.default, aten.flip.default, aten.unfold.default,
)  # fmt: skip
def _on_a_line(node: Node) -> Node | None:
    """A value without dimensions is a line of one element."""
    if shape_of(node.args[0]):
        return None
    args = map_arg(node.args, lambda x: x if shape_of(x) else emit(node, aten.reshape.default, x, [1]))
    on_line = emit(node, node.target, *args, **node.kwargs)
    return emit(node, aten.reshape.default, on_line, list(shape_of(node)))


@RULES.on(*SCATTERS)
def _check_bounds(node: Node) -> Node | None:
    x, dim, index, *rest = node.args
    on_device = dtype_of(x).is_floating_point or dtype_of(x) == torch.bool
    is_checked = is_call(index, operators.bounded, operators.bounded_along, operators.found)
    if not on_device or is_checked or not math.prod(shape_of(index)):
        return None
    size = shape_of(x)[dim]
    checked = as_found(node, index, size) or emit(node, operators.bounded, index, size)
    return emit(node, node.target, x, dim, checked, *rest, **node.kwargs)


@RULES.on(aten.scatter_reduce.two)
def _leave_out_self(node: Node) -> Node | None:
    """What x holds at these places is replaced by what changes nothing."""
    x, dim, index, source, reduce = node.args
    neutral = {"sum": 0, "prod": 1}.get(reduce)
    if neutral is None or node.kwargs.get("include_self", True):
        return None
    x = emit(node, aten.scatter.src, x, dim, index, _full(node, shape_of(index), neutral, dtype_of(x)))
    return emit(node, node.target, x, dim, index, source, reduce)


@RULES.on(aten.scatter.value, aten.scatter.value_reduce)
def _scatter_value(node: Node) -> Node:
    """One number into many places: a source full of it."""
    x, dim, index, number = node.args
    target = aten.scatter.src if node.target is aten.scatter.value else aten.scatter.reduce
    return emit(node, target, x, dim, index, _full(node, shape_of(index), number, dtype_of(x)), **node.kwargs)


@RULES.on(aten.index_fill.int_Scalar, aten.index_fill.int_Tensor, aten.index_add.default)
def _write_along(node: Node) -> Node | None:
    """One number, or what is added, at positions along one dimension."""
    x, dim, index, value = node.args
    value = value if isinstance(value, Node) else _full(node, [], value, dtype_of(x))
    if dtype_of(value) != dtype_of(x) or not shape_of(x) or not shape_of(index):
        return None
    dim, adds = dim % len(shape_of(x)), node.target is aten.index_add.default
    if adds:
        index = emit(node, operators.bounded, index, shape_of(x)[dim])
    if node.kwargs.get("alpha", 1) != 1:
        value = emit(node, aten.mul.Tensor, value, node.kwargs["alpha"])
    return emit(node, aten.index_put.default, x, [None] * dim + [index], value, adds)


@RULES.on(aten.index_put.default)
def _index_put(node: Node) -> Node | None:
    """One number wherever a mask says so is a choice; what is added at the places of one index is scattered."""
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
        source = [*shape[:dim], *shape_of(index), *shape[dim + 1 :]]
        index = emit(node, operators.index_numbers, [index], [shape[dim]])
        index = emit(node, operators.bounded_along, index, shape[dim], dim, source)
        return emit(node, aten.scatter_add.default, x, dim, index, emit(node, aten.expand.default, values, source))
    return None
