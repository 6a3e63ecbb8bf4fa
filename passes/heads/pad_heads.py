"""Pad heads to whole tiles inside the weights that make them and the weight that reads them.

Before   q, k, v = [heads(linear(x, w[in, h * 72], b)) …];   y = linear(merge(attention(q, k, v)), w[h * 72, out])
After    q, k, v = [heads(linear(x, w[in, h * 96], b)) …];   y = linear(merge(attention(q, k, v)), w[h * 96, out])

TTNN splits, attends and merges heads of whole tiles only; any other head_dim costs a slice and a pad for each of query,
key and value, and a permute behind them. New columns and rows are zeros, and the scale stays that of the true head_dim.
Queries and keys narrower than values, as LeViT has them, become as wide. Only where linears of constants make all
three, nothing else reads them, and a linear alone reads the merged heads if these become wider: what a cache keeps or a
rotary embedding turns has the width that the model gave it. RMS norms of heads (of cosine attention among them) and
constants of each head may stand between: zeros make the mean of squares of n of m columns n / m of itself, which the
norm's weight and epsilon take.
"""

import math

import torch
import torch.nn.functional as F
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.passes.fuse.linears import Projection, projections, take, take_columns, to_heads
from tt_dynamo.passes.movement import is_move, merges_heads, source_of
from tt_dynamo.passes.rewrite import emit, is_constant

sdpa = aten.scaled_dot_product_attention.default
TILE = 32


def pad_heads(graph: Graph, context: Context) -> int:
    """Pad the heads of every attention that matches; returns how many."""
    padded = 0
    for attention in graph.find_nodes(op="call_function", target=sdpa):
        wide = math.ceil(max(shape_of(x)[-1] for x in attention.args[:3]) / TILE) * TILE
        if any(shape_of(x)[-1] < wide for x in attention.args[:3]):
            heads = _heads(attention, context)
            reader = _reader(attention, context) if heads is not None else None
            if heads is not None and (reader is not None or shape_of(attention)[-1] == wide):
                _pad(attention, heads, reader, wide)
                padded += 1
    dead_code(graph)
    return padded


def _heads(attention: Node, context: Context) -> list[Projection] | None:
    """Query, key and value, where linears of constants make the three for this attention and for nothing else."""
    operands = [_steps(operand, attention)[-1] for operand in attention.args[:3]]
    sources = {source_of(operand): None for operand in operands if only_user(operand) is not None}
    made = {found.heads: found for linear in sources for found in projections(linear, context)}
    return [made[operand] for operand in operands] if len(made) == 3 and made.keys() == {*operands} else None


def _steps(operand: Node, attention: Node) -> list[Node]:
    """An operand of attention and the norms and scales that made it, last one first, down to the heads."""
    steps, reader = [operand], attention
    while only_user(operand) is reader and (x := _scaled_heads(operand)) is not None:
        steps.append(x)
        operand, reader = x, operand
    return steps


def _scaled_heads(node: Node) -> Node | None:
    """The heads of which a node is the RMS norm, or the product with constants of whole heads; else None."""
    if is_call(node, operators.rms_norm):
        x, weight = node.args[:2]
        return x if weight is None or (is_constant(weight) and len(shape_of(weight)) == 1) else None
    if not is_call(node, aten.mul.Tensor):
        return None
    x, factor = node.args if not is_constant(node.args[0]) else node.args[::-1]
    is_of_heads = isinstance(factor, Node) and is_constant(factor) and shape_of(factor)[-1:] in ((), (1,))
    return x if is_of_heads and shape_of(x) == shape_of(node) else None


def _reader(attention: Node, context: Context) -> Node | None:
    """The linear with a constant weight that alone reads the merged heads."""
    _, heads, _, head_dim = shape_of(attention)
    node, user = attention, only_user(attention)
    while user is not None and is_move(user):
        node, user = user, only_user(user)
    if user is None or not is_call(user, operators.linear) or user.args[0] is not node or not is_constant(user.args[1]):
        return None
    return user if shape_of(node)[-1] == heads * head_dim and merges_heads(node, context) else None


def _padded(columns: torch.Tensor, wide: int) -> torch.Tensor:
    """Numbers of columns [heads, head_dim] up to so many; -1 stands for zeros."""
    return F.pad(columns, (0, wide - columns.shape[-1]), value=-1)


def _padded_step(step: Node, x: Node) -> Node:
    """The norm or product `step` of heads x, which are padded."""
    if is_call(step, aten.mul.Tensor):
        return emit(step, step.target, *(arg if is_constant(arg) else x for arg in step.args))
    _, weight, eps = step.args
    own, wide = shape_of(step)[-1], shape_of(x)[-1]
    if weight is None:
        weight = emit(step, aten.full.default, [own], 1.0, dtype=dtype_of(step), device=torch.device("cpu"))
    weight = emit(step, aten.mul.Tensor, weight, math.sqrt(own / wide))
    weight = emit(step, aten.constant_pad_nd.default, weight, [0, wide - own])
    return emit(step, operators.rms_norm, x, weight, eps * own / wide)


def _pad(attention: Node, heads: list[Projection], reader: Node | None, wide: int) -> None:
    with attention.graph.inserting_before(attention):
        operands = []
        for (linear, columns, made), operand in zip(heads, attention.args[:3], strict=True):
            weights = take_columns(linear, _padded(columns, wide).reshape(-1))
            x = emit(linear, operators.linear, linear.args[0], *weights)
            x = to_heads(x, (*shape_of(made)[:-1], wide), made)
            for step in reversed(_steps(operand, attention)[:-1]):
                x = _padded_step(step, x)
            operands.append(x)
        scale = attention.kwargs.get("scale")
        scale = shape_of(attention.args[0])[-1] ** -0.5 if scale is None else scale
        out = emit(attention, sdpa, *operands, *attention.args[3:], **{**attention.kwargs, "scale": scale})
    _, count, _, head_dim = shape_of(attention)
    if reader is None or head_dim == wide:
        replace(attention, out)
        return
    with reader.graph.inserting_before(reader):
        rows = _padded(torch.arange(count * head_dim).reshape(count, head_dim), wide).reshape(-1)
        merged = emit(attention, aten.permute.default, out, [0, 2, 1, 3])
        merged = emit(attention, aten.reshape.default, merged, [*shape_of(reader.args[0])[:-1], len(rows)])
        weight = take(reader.args[1], rows, reader, dim=0)
        replace(reader, emit(reader, operators.linear, merged, weight, *reader.args[2:]))
