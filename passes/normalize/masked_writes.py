"""Values written where a mask is true become a lookup of their rows and a choice between those and what was there.

Before   y = masked_scatter(x, mask, values)               y = index_put(x, [mask], values)
After    y = where(mask, look_up(values, numbers), x)      y = where(mask, values, x), values broadcast to each place

So the features of an image go to the places of its tokens. What a place reads is counted on the host, where masks are
made from token ids, and eager torch itself checks the count: `masked_scatter` ignores what is left over, `index_put`
does not. Rows are read whole where the mask says the same of all their elements, and else the elements one by one.
"""

import math

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dtype_of, is_call, shape_of
from tt_dynamo.passes.rewrite import Rules, argument, emit
from tt_dynamo.passes.rows import movable

RULES = Rules()


def masked_writes_to_where(graph: Graph, context: Context) -> int:
    """Replace each such write; returns how many."""
    return RULES.apply(graph, leave=constant_nodes)


@RULES.on(aten.masked_scatter.default)
def _masked_scatter(node: Node) -> Node | None:
    x, mask, values = node.args
    if not _writes(node, mask, values):
        return None
    shape = shape_of(node)
    while is_call(mask, aten.expand.default):
        mask = mask.args[0]
    width = shape[-1] if shape_of(mask)[-1:] == (1,) else 1
    return _written(node, x, mask, values, width, exact=False)


@RULES.on(aten.index_put.default)
def _index_put(node: Node) -> Node | None:
    """By one mask of the leading dimensions, without accumulation."""
    x, indices, values = node.args[:3]
    mask = indices[0] if len(indices) == 1 else None
    if mask is None or argument(node, 3, False) or not _writes(node, mask, values):
        return None
    rank, shape = len(shape_of(mask)), shape_of(node)
    mask = emit(node, aten.reshape.default, mask, [*shape_of(mask), *[1] * (len(shape) - rank)])
    kept = shape[rank:]
    given = (*[1] * (1 + len(kept) - len(shape_of(values))), *shape_of(values))
    if len(given) > 1 + len(kept):
        return None
    if given[0] == 1:  # the same for every place
        values = emit(node, aten.reshape.default, values, [*[1] * rank, *given[1:]])
        return emit(node, aten.where.self, mask, values, x)
    values = emit(node, aten.expand.default, values, [given[0], *kept])
    return _written(node, x, mask, values, math.prod(kept), exact=True)


def _writes(node: Node, mask: Node, values: Node) -> bool:
    """Whether the device holds what is read and written, of one dtype."""
    is_mask = dtype_of(mask) == torch.bool and math.prod(shape_of(mask)) > 0
    return is_mask and dtype_of(values) == dtype_of(node.args[0]) and movable(values) and movable(node)


def _written(node: Node, x: Node, mask: Node, values: Node, width: int, *, exact: bool) -> Node | None:
    """`node`: x, with rows of `width` elements from values, one after another, where the mask is true.

    mask: broadcastable to the result; within a row it does not vary.
    """
    shape = shape_of(node)
    count, leading = math.prod(shape_of(values)) // max(width, 1), list(shape)
    taken = width
    while taken > 1:  # the dimensions that a row spans
        taken //= leading.pop()
    if not count or taken != 1:
        return None
    line = emit(node, aten.reshape.default, values, [-1])
    line = emit(node, aten.slice.Tensor, line, 0, 0, count * width)  # what fills no row is read nowhere
    places = emit(node, aten.expand.default, mask, [*leading, *[1] * (len(shape) - len(leading))])
    numbers = emit(node, operators.masked_numbers, emit(node, aten.reshape.default, places, leading), count, exact)
    if width > 1:
        found = emit(node, operators.look_up, emit(node, aten.reshape.default, line, [count, width]), numbers)
    else:
        found = emit(node, operators.pick, line, numbers)
    return emit(node, aten.where.self, mask, emit(node, aten.reshape.default, found, list(shape)), x)
