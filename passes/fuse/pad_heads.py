"""Pad heads to whole tiles inside the weights that make them and the weight that reads them.

Before   q, k, v = [heads(linear(x, w[in, h * 72], b)) …];   y = linear(merge(attention(q, k, v)), w[h * 72, out])
After    q, k, v = [heads(linear(x, w[in, h * 96], b)) …];   y = linear(merge(attention(q, k, v)), w[h * 96, out])

TTNN splits, attends and merges heads of whole tiles only; any other head_dim costs a slice and a pad for each of query,
key and value, and a permute behind them. The columns and rows that are new are zeros: they add nothing to a score, what
they make of the values is zero, and the scale stays that of the true head_dim. Only where linears with constant weights
make all three, nothing else reads them, and a linear alone reads the merged heads: what a cache keeps or a rotary
embedding turns has the width that the model gave it.
"""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dead_code, insert, is_call, only_user, replace, shape_of
from tt_dynamo.passes.movement import head_columns, is_move, merges_heads, moves_behind, source_of
from tt_dynamo.passes.rows import literal

sdpa = aten.scaled_dot_product_attention.default
TILE = 32


def pad_heads(graph: Graph, context: Context) -> int:
    """Pad the heads of every attention that matches; returns how many."""
    constants = constant_nodes(graph)
    padded = 0
    for attention in graph.find_nodes(op="call_function", target=sdpa):
        if shape_of(attention.args[0])[-1] % TILE == 0 or not _makes_heads(attention, constants, context):
            continue
        reader = _reader(attention, constants, context)
        if reader is not None:
            _pad(graph, attention, reader, context)
            padded += 1
    if padded:
        dead_code(graph)
    return padded


def _makes_heads(attention: Node, constants: set[Node], context: Context) -> bool:
    """Whether linears with constant weights make query, key and value for this attention and for nothing else."""
    operands = set(attention.args[:3])
    if len(operands) != 3 or any(list(x.users) != [attention] for x in operands):
        return False
    for x in operands:
        linear = source_of(x)
        if not is_call(linear, operators.linear) or len(linear.args) > 3 or head_columns(x, context) is None:
            return False
        if any(weight is not None and weight not in constants for weight in linear.args[1:3]):
            return False
        if not _ends(linear, operands) <= operands:
            return False
    return True


def _ends(node: Node, operands: set[Node]) -> set[Node]:
    """What the moves of a value end in: those of `operands`, and whatever else reads it."""
    inner = [n for n in moves_behind(node) if n not in operands]
    return {user for n in inner for user in n.users if user in operands or not is_move(user)}


def _reader(attention: Node, constants: set[Node], context: Context) -> Node | None:
    """The linear with a constant weight that alone reads the merged heads."""
    _, heads, _, head_dim = shape_of(attention)
    node, user = attention, only_user(attention)
    while user is not None and is_move(user):
        node, user = user, only_user(user)
    if user is None or not is_call(user, operators.linear) or user.args[0] is not node or user.args[1] not in constants:
        return None
    return user if shape_of(node)[-1] == heads * head_dim and merges_heads(node, context) else None


def _pad(graph: Graph, attention: Node, reader: Node, context: Context) -> None:
    batch, heads, seq, head_dim = shape_of(attention)
    wide = head_dim + -head_dim % TILE
    with graph.inserting_before(attention):
        operands = [_wide_heads(graph, x, wide, context) for x in attention.args[:3]]
        scale = attention.kwargs.get("scale")
        options = {**attention.kwargs, "scale": head_dim**-0.5 if scale is None else scale}
        out = insert(graph, sdpa, (*operands, *attention.args[3:]), options, like=attention)
    with graph.inserting_before(reader):
        merged = insert(graph, aten.permute.default, (out, [0, 2, 1, 3]), like=attention)
        shape = [*shape_of(reader.args[0])[:-1], heads * wide]
        merged = insert(graph, aten.reshape.default, (merged, shape), like=attention)
        weight = _padded(graph, reader.args[1], (heads, head_dim), wide, 0)
        replace(reader, insert(graph, operators.linear, (merged, weight, *reader.args[2:]), like=reader))


def _wide_heads(graph: Graph, x: Node, wide: int, context: Context) -> Node:
    """x [batch, heads, seq, head_dim] with zeros up to [..., wide], made by a linear of its own."""
    batch, heads, seq, head_dim = shape_of(x)
    linear, columns = source_of(x), head_columns(x, context)
    assert columns is not None, "asked before"
    own = [w and _padded(graph, _columns(graph, w, columns), (heads, head_dim), wide, -1) for w in linear.args[1:3]]
    made = insert(graph, operators.linear, (linear.args[0], *own), like=linear)
    made = insert(graph, aten.reshape.default, (made, [batch, seq, heads, wide]), like=x)
    return insert(graph, aten.permute.default, (made, [0, 2, 1, 3]), like=x)


def _columns(graph: Graph, weight: Node, columns: torch.Tensor) -> Node:
    """Those columns of a weight or bias, in their order."""
    numbers = columns.reshape(-1).to(torch.int64)
    if torch.equal(numbers, torch.arange(shape_of(weight)[-1])):
        return weight
    return insert(graph, aten.index_select.default, (weight, -1, literal(weight, numbers)), like=weight)


def _padded(graph: Graph, weight: Node, heads: tuple[int, int], wide: int, dim: int) -> Node:
    """A weight or bias whose columns (dim -1) or rows (dim 0) are [heads, head_dim], with zeros up to [heads, wide]."""
    (count, head_dim), shape = heads, list(shape_of(weight))
    before, behind = (shape[:-1], []) if dim == -1 else ([], shape[1:])
    pads = [0, 0] * len(behind) + [0, wide - head_dim]
    apart = insert(graph, aten.reshape.default, (weight, [*before, count, head_dim, *behind]), like=weight)
    whole = insert(graph, aten.constant_pad_nd.default, (apart, pads), like=weight)
    return insert(graph, aten.reshape.default, (whole, [*before, count * wide, *behind]), like=weight)
