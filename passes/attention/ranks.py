"""Attention over any number of dimensions as attention of [batch, heads, seq, head_dim], as TTNN has it.

Before   q, k, v [batch, heads, windows, seq, head_dim];   y = scaled_dot_product_attention(q, k, v)
After    y = heads_second(scaled_dot_product_attention(q, k, v [batch * windows, heads, seq, head_dim]))

Models of windows keep these in a dimension of their own, before the heads (Twins) or behind them (NesT). Heads are what
lies in the columns of a projection; every other leading dimension is one of the batch.
"""

import math

from torch.fx import Node

from tt_dynamo.ir.graph import Context, aten, shape_of
from tt_dynamo.passes.movement import positions, source_of
from tt_dynamo.passes.rewrite import argument, emit

SDPA = aten.scaled_dot_product_attention.default
RANK = 4


def fold_leading(node: Node, context: Context) -> Node | None:
    """Attention [..., seq, head_dim] by attention of rank 4; None where keys have other leading dimensions."""
    query, key, value = node.args[:3]
    leading, rank = shape_of(query)[:-2], len(shape_of(query))
    if any(shape_of(x)[:-2] != leading for x in (key, value)) or 0 in leading:
        return None
    heads = _heads_dim(value, context)
    order = [*(dim for dim in range(rank - 2) if dim != heads), heads, rank - 2, rank - 1]

    def folded(x: Node) -> Node:
        *_, count, rows, columns = (shape_of(x)[dim] for dim in order)
        moved = emit(node, aten.permute.default, x, order)
        return emit(node, aten.reshape.default, moved, [math.prod(shape_of(moved)[:-3]), count, rows, columns])

    mask = argument(node, 3)
    if mask is not None:
        whole = [1] * (rank - len(shape_of(mask))) + list(shape_of(mask))
        mask = emit(node, aten.reshape.default, mask, whole)
        if any(whole[dim] > 1 for dim in order[:-3]):  # windows have masks of their own
            sizes = [whole[dim] if dim in order[-3:] else leading[dim] for dim in range(rank)]
            mask = emit(node, aten.expand.default, mask, sizes)
        mask = folded(mask)
    options = {name: value for name, value in node.kwargs.items() if name != "attn_mask"}
    made = emit(node, SDPA, *map(folded, (query, key, value)), mask, *node.args[4:], **options)
    apart = emit(node, aten.reshape.default, made, [*(leading[dim] for dim in order[:-2]), *shape_of(made)[-2:]])
    return emit(node, aten.permute.default, apart, sorted(range(rank), key=order.__getitem__))


def _heads_dim(x: Node, context: Context) -> int:
    """The one leading dimension along which the row of the source stays the same; else one of one head, or the last."""
    shape, source, found = shape_of(x), source_of(x), positions(x, context)
    last = len(shape) - 3
    if found is None or source is x or not shape_of(source):
        return last
    grain, where = found
    rows = where // max(shape_of(source)[-1] // grain, 1)
    still = [dim for dim in range(last + 1) if shape[dim] > 1 and bool((rows == rows.narrow(dim, 0, 1)).all())]
    still = still or [dim for dim in range(1, last + 1) if shape[dim] == 1]
    return still[0] if len(still) == 1 else last
