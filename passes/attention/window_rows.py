"""Windows of attention by the order of rows, so that kernels split and merge the heads.

Before   qkv = reshape(linear(x, w), [b, n, windows, 3, heads, d]);   q, k, v = unbind(permute(qkv, [3, 0, 4, 2, 1, 5]))
         y = reshape(permute(attention(q, k, v), [0, 3, 2, 1, 4]), [b, n * windows, heads * d])
After    q, k, v = unbind(heads(linear(look_up(x, rows), w)));   y = look_up(merge(attention(q, k, v)), rows⁻¹)

Heads and windows that change places at once are a permute of six dimensions. Rows that are looked up are moved whole,
before the linear makes three of each, and meet the lookups of other windows: what works row by row takes any order
(`passes/row_orders.py`). So Hiera and Twins have it. Attention of more than four dimensions has four here.
"""

import math
from typing import NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, only_user, replace, shape_of
from tt_dynamo.passes.attention.ranks import RANK, SDPA, fold_leading
from tt_dynamo.passes.fuse.linears import has_own_weights, take_columns
from tt_dynamo.passes.movement import is_move, moves_behind, numbered, positions
from tt_dynamo.passes.rewrite import emit
from tt_dynamo.passes.rows import literal


class Heads(NamedTuple):
    """A value that moves make of a linear: which rows of it, [*row dimensions], and columns, [*others, last]."""

    value: Node
    row_dims: list[int]
    rows: torch.Tensor
    columns: torch.Tensor


def order_window_rows(graph: Graph, context: Context) -> int:
    """Have attention of four dimensions, and rows of windows looked up; returns how often."""
    count = 0
    for attention in graph.find_nodes(op="call_function", target=SDPA):
        with graph.inserting_before(attention):
            folded = fold_leading(attention, context) if len(shape_of(attention)) > RANK else None
        if folded is not None:
            replace(attention, folded)
            count += 1
    dead_code(graph)
    count += sum(_order_heads(node, context) for node in graph.find_nodes(op="call_function", target=operators.linear))
    count += sum(_order_merged(node, context) for node in graph.find_nodes(op="call_function", target=SDPA))
    dead_code(graph)
    return count


def _order_heads(linear: Node, context: Context) -> bool:
    """Look up the rows of a linear before it, where all that reads it are heads of the same rows."""
    moved = moves_behind(linear) if has_own_weights(linear) and linear.meta["val"].numel() else []
    ends = [x for x in moved if isinstance(x.meta["val"], torch.Tensor) and not all(map(is_move, x.users))]
    heads = [_heads(x, linear, context) for x in ends if x is not linear]
    found = [each for each in heads if each is not None]
    if not found or len(found) < len(ends) or not any(map(_are_heads, found)):
        return False
    rows, count = found[0].rows.reshape(-1), math.prod(shape_of(linear)[:-1])
    is_order = rows.numel() == count and all(torch.equal(each.rows.reshape(-1), rows) for each in found)
    if not is_order or torch.equal(rows, torch.arange(count)) or len(rows.unique()) < count:
        return False
    x, made = linear.args[0], {}
    for value, row_dims, rows, columns in found:
        leading = tuple(rows.shape)
        with linear.graph.inserting_before(linear):
            if leading not in made:
                made[leading] = emit(linear, operators.look_up, x, literal(linear, rows))
            y = emit(linear, operators.linear, made[leading], *take_columns(linear, columns.reshape(-1)))
            pool = _pool(value, row_dims)
            if pool is not None:  # of rows, before columns are heads
                dim = pool.args[1][0]
                y = emit(pool, pool.target, y, [row_dims.index(dim)])
                value, row_dims = pool, [other - (other > dim) for other in row_dims if other != dim]
            y = emit(linear, aten.reshape.default, y, [*shape_of(y)[:-1], *columns.shape])
            order = [*row_dims, *(dim for dim in range(len(shape_of(value))) if dim not in row_dims)]
            y = emit(linear, aten.permute.default, y, sorted(range(len(order)), key=order.__getitem__))
        replace(value, y)
    return True


def _are_heads(heads: Heads) -> bool:
    """Whether a value has columns of several heads, or attention reads the one head that it is."""
    return len(heads.columns.shape) > 1 or any(is_call(user, SDPA) for user in heads.value.users)


def _pool(value: Node, row_dims: list[int]) -> Node | None:
    """The maximum along one dimension of rows that alone reads a value."""
    user = only_user(value)
    if user is None or not is_call(user, aten.amax.default) or len(user.args) != 2 or user.kwargs:
        return None
    return user if len(user.args[1]) == 1 and user.args[1][0] in row_dims else None


def _heads(value: Node, linear: Node, context: Context) -> Heads | None:
    """The rows and columns of a linear that a value holds; None where one depends on the other."""
    found, rank = positions(value, context), len(shape_of(value))
    if found is None or rank < 2:
        return None
    grain, where = found
    width = shape_of(linear)[-1] // grain
    rows, columns = where // width, where % width
    row_dims = [dim for dim in range(rank - 1) if where.shape[dim] == 1 or _varies(rows, dim)]
    others = [dim for dim in range(rank) if dim not in row_dims]
    if any(_varies(rows, dim) for dim in others) or any(_varies(columns, dim) for dim in row_dims):
        return None
    columns = _at_first(columns, row_dims)[..., None] * grain + torch.arange(grain)
    return Heads(value, row_dims, _at_first(rows, others).long(), columns.flatten(-2))


def _varies(numbers: torch.Tensor, dim: int) -> bool:
    return not bool((numbers == numbers.narrow(dim, 0, 1)).all())


def _at_first(numbers: torch.Tensor, dims: list[int]) -> torch.Tensor:
    """The numbers at the first place of some dimensions, without these."""
    return numbers[tuple(0 if dim in dims else slice(None) for dim in range(numbers.dim()))]


def _order_merged(attention: Node, context: Context) -> bool:
    """Merge the heads of attention where windows are left, and look their rows up behind that."""
    end, rows = None, None
    node = only_user(attention) if len(shape_of(attention)) == RANK else None
    while node is not None and is_move(node):
        if isinstance(node.meta["val"], torch.Tensor) and (found := _merged_rows(node, attention, context)) is not None:
            end, rows = node, found
        node = only_user(node)
    if end is None or rows is None or torch.equal(rows.reshape(-1), numbered((rows.numel(),), rows.dtype)):
        return False
    batch, heads, seq, head_dim = shape_of(attention)
    with end.graph.inserting_before(end):
        merged = emit(attention, aten.permute.default, attention, [0, 2, 1, 3])
        merged = emit(attention, aten.reshape.default, merged, [batch, seq, heads * head_dim])
        replace(end, emit(end, operators.look_up, merged, literal(end, rows)))
    return True


def _merged_rows(node: Node, attention: Node, context: Context) -> torch.Tensor | None:
    """Which [batch, seq] the merged heads of attention are of that each row of a value holds, counted through."""
    batch, heads, seq, head_dim = shape_of(attention)
    found, shape = positions(node, context), shape_of(node)
    if found is None or shape[-1:] != (heads * head_dim,) or math.prod(shape) != math.prod(shape_of(attention)):
        return None
    grain, where = found
    merged = numbered((batch, heads, seq, head_dim // grain)).permute(0, 2, 1, 3).reshape(batch * seq, -1)
    row_of = torch.full((merged.numel(),), -1)
    row_of[merged[:, 0].long()] = torch.arange(len(merged))
    rows = row_of[where[..., 0].long()]
    return rows if bool((rows >= 0).all()) and torch.equal(merged[rows], where) else None
