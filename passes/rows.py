"""Rows, each of which lies along the last dimension of a value: their numbers, and operations that work row by row.

Rows and elements are numbered through all dimensions before. What works row by row takes rows in any leading shape, so
that a reshape before it may as well come behind it.
"""

from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call, replace, shape_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import emit

# What the device holds as bfloat16: integers keep to the host, where they are exact.
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.bool)
# Numbers of larger tensors are not worth their memory.
LIMIT = 1 << 24
# What works row by row, and how many of its first operands hold the rows.
ROWS = {
    **{getattr(aten, name).default: 1 for name in ("layer_norm", "gelu", "relu", "silu", "sigmoid", "tanh")},
    **dict.fromkeys((operators.linear, operators.rms_norm), 1),
    **dict.fromkeys((operators.add_layer_norm, aten.add.Tensor, aten.mul.Tensor), 2),
}
BY_DIMENSION = (aten.index_select.default, aten.index_copy.default)


def movable(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in DTYPES and 0 < value.numel() <= LIMIT


def rows_of(numbers: torch.Tensor, width: int) -> torch.Tensor | None:
    """The number of the row that each row of `numbers` is, None where they are no whole rows of `width` elements."""
    if not numbers.dim() or numbers.shape[-1] != width:
        return None
    first = numbers[..., 0]
    whole = bool((first % width == 0).all()) and torch.equal(numbers, first.unsqueeze(-1) + torch.arange(width))
    return first // width if whole else None


def literal(node: Node, numbers: torch.Tensor, name: str = "") -> Node:
    """A node that stands for `numbers`, at the graph's insertion point; those of one name are one constant.

    Equal numbers without a name are one as well: what layers make of them alike is computed once.
    """
    root = node.graph.owning_module
    name = name or _name_of_equal(root, numbers) or f"numbers_{len(root._buffers)}"
    held = numbers.clone(memory_format=torch.contiguous_format)
    root.register_buffer(name, held)
    found = node.graph.get_attr(name)
    found.meta["val"] = node.meta["val"].fake_mode.from_tensor(held, static_shapes=True)
    return found


def _name_of_equal(root: Any, numbers: torch.Tensor) -> str | None:
    """The name of the unnamed literal that holds the same; None where there is none. NaN is equal to nothing."""
    same = (name for name, held in root._buffers.items() if name.startswith("numbers_") and held.dtype == numbers.dtype)
    return next((name for name in same if torch.equal(root._buffers[name], numbers)), None)


def indices_of(node: Node) -> list[Any] | None:
    """What indexes each dimension of the operand: a tensor of integers, or None for all of it."""
    rank, by_dimension = len(shape_of(node.args[0])), node.target in BY_DIMENSION
    indices = [None] * (node.args[1] % max(rank, 1)) + [node.args[2]] if by_dimension else list(node.args[1])
    tensors = [index for index in indices if index is not None]
    is_one = by_dimension and not shape_of(node.args[2])
    if not rank or is_one or not {dtype_of(index) for index in tensors} <= {torch.int64, torch.int32}:
        return None
    return indices + [None] * (rank - len(indices)) if tensors else None


def carry(node: Node, leading: tuple[int, ...]) -> bool:
    """Have a call that works row by row take its rows as [*leading, n]; False where an operand is broadcast."""
    args, shape = list(node.args), shape_of(node)
    operands = _row_operands(node)
    if any(shape_of(x)[:-1] != shape[:-1] for x in operands.values()):
        return False
    with node.graph.inserting_before(node):
        for place, x in operands.items():
            wanted = (*leading, shape_of(x)[-1])
            is_there = is_call(x, aten.reshape.default) and shape_of(x.args[0]) == wanted
            args[place] = x.args[0] if is_there else emit(node, aten.reshape.default, x, list(wanted))
        rows = emit(node, node.target, *args, **node.kwargs)
        replace(node, emit(node, aten.reshape.default, rows, list(shape)))
    return True


def _row_operands(node: Node) -> dict[int, Node]:
    return {place: x for place, x in enumerate(node.args[: ROWS[node.target]]) if isinstance(x, Node)}


def sink_rank3_reshapes(graph: Graph, context: Context) -> int:
    """Carry activations at rank 4 between attentions, as TTNN's attention gives and takes them.

    Before   x = reshape(attention(...), [b, s, n]);   y = linear(x, w) + r;   split_heads(reshape(y, [b, 1, s, n]))
    After    x = attention(...);   y = linear(x, w) + reshape(r, [b, 1, s, n]);   split_heads(y)

    A reshape to rank 3 moves below every operation that works row by row, until it meets the reshape in front of the
    next attention and both vanish: a view launches nothing, but is a call. Returns past how many operations.
    """
    carried = 0
    for node in list(graph.nodes):
        if not is_call(node, *ROWS) or len(shape_of(node)) != 3:
            continue
        leading = (shape_of(node)[0], 1, shape_of(node)[1])
        reshaped = [x.args[0] for x in _row_operands(node).values() if is_call(x, aten.reshape.default)]
        if any(shape_of(x)[:-1] == leading for x in reshaped):
            carried += carry(node, leading)
    if carried:
        canonicalize(graph, context)
    return carried


def among(node: Node, x: Node, values: Node, numbers: Node, width: int | None = None) -> Node:
    """Rows of `width` by their numbers in x and, behind it, values; elements where `width` is None."""
    shape = [-1] if width is None else [-1, width]
    table = emit(node, aten.cat.default, [emit(node, aten.reshape.default, part, shape) for part in (x, values)])
    return emit(node, operators.pick if width is None else operators.look_up, table, numbers)
