"""Fuse the query, key and value projections of one input into a single linear and a single split into heads.

Before   q = heads(linear(x, wq, bq))   k = heads(linear(x, wk, bk))   v = heads(linear(x, wv, bv))
After    qkv = linear(x, cat(wq, wk, wv), cat(bq, bk, bv));   q, k, v = split_heads(qkv)

Found where all three read the same value with constant weights, whoever reads the heads. One projection whose columns
hold all three in any order is regrouped the same way, on the weight. With a mask the scale moves into the query's
columns (or into the weight of the query's norm): TTNN's attention launches one more kernel for a scaled mask. What is
left alone, as cross-attention is, still gets its heads by the shortest way: slice, reshape, permute.
"""

import itertools
import operator

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, needed_for, only_user, replace, shape_of
from tt_dynamo.passes.fuse.linears import Projection, is_consecutive, projections, take, take_columns, to_heads
from tt_dynamo.passes.movement import MOVES, chain_of, head_columns, source_of
from tt_dynamo.passes.rewrite import argument, emit, is_constant

sdpa = aten.scaled_dot_product_attention.default
ROTARY = (operators.rotary, operators.rotary_by_matrix)
# What heads may pass on their way to attention, still query, key or value.
ON_THE_WAY = (
    *(*MOVES, *ROTARY, operators.rms_norm, operators.update_cache),
    *(aten.layer_norm.default, aten.index_copy.default, aten.expand.default, aten.cat.default),
)


def fuse_qkv(graph: Graph, context: Context) -> int:
    """Fuse the projections of every self-attention; returns how many attentions."""
    by_input: dict[Node, list[Projection]] = {}
    for linear in graph.find_nodes(op="call_function", target=operators.linear):
        by_input.setdefault(linear.args[0], []).extend(projections(linear, context))
    shared = 0
    for root, found in by_input.items():
        by_input[root] = _shared(found)
        shared += len(found) - len(by_input[root])
    fused = [three for found in by_input.values() for three in _threes(found)]
    for three in fused:
        _fuse(*three)
    operands = [x for attention in graph.find_nodes(op="call_function", target=sdpa) for x in attention.args[:3]]
    straightened = sum(_straighten(operand, context) for operand in operands)
    dead_code(graph)
    return len(fused) + straightened + shared


def _shared(found: list[Projection]) -> list[Projection]:
    """The projections less those that are another's heads by other moves, which read that one's then.

    DeBERTa's keys meet queries as one transposed from the linear, and positions as heads of it.
    """
    kept: list[Projection] = []
    for projection in sorted(found, key=lambda p: p.heads):
        twin = next((other for other in kept if _are_alike(projection, other)), None)
        if twin is None:
            kept.append(projection)
        else:
            replace(projection.heads, twin.heads)
    return kept


def _are_alike(one: Projection, other: Projection) -> bool:
    is_same = one.linear is other.linear and shape_of(one.heads) == shape_of(other.heads)
    return is_same and one.heads is not other.heads and torch.equal(one.columns, other.columns)


def _threes(found: list[Projection]) -> list[tuple[Projection, ...]]:
    """Query, key and value of one input; where it has more projections, as MViT's for its shortcut, of each linear."""
    by_linear: dict[Node, list[Projection]] = {}
    for projection in found:
        by_linear.setdefault(projection.linear, []).append(projection)
    threes = (_in_order(found), *map(_in_order, by_linear.values() if len(found) > 3 else ()))
    return [three for three in threes if three]


def _in_order(found: list[Projection]) -> tuple[Projection, ...] | None:
    """The three as query, key, value; None where they are not what one split gives.

    Where nothing tells which is which, as in a graph that only fills a cache, their order in the graph does.
    """
    shapes = [shape_of(projection.heads) for projection in found]
    if not len({p.heads for p in found}) == len(found) == 3 or len({(s[0], *s[2:]) for s in shapes}) > 1:
        return None
    ordered = sorted(found, key=lambda p: (_role(p.heads), p.heads))
    orders = itertools.permutations(ordered)
    return next((order for order in orders if len(order[1].columns) == len(order[2].columns)), None)


def _role(heads: Node) -> int:
    """0, 1, 2 for what attention reads as query, key, value; 3 where no attention reads it."""
    reached, role = [heads], 3
    for node in reached:
        for user in node.users:
            if is_call(user, sdpa):
                role = min(role, (*user.args[:3], node).index(node))
            elif is_call(user, *ON_THE_WAY) and user not in reached:
                reached.append(user)
    return role


def _straighten(operand: Node, context: Context) -> bool:
    """Heads by slice, reshape and permute of their source, where a longer chain of moves makes them."""
    columns, x = head_columns(operand, context), source_of(operand)
    if columns is None or not is_consecutive(columns.reshape(-1)):
        return False
    batch, _, seq, _ = shape = shape_of(operand)
    width = shape_of(x)[-1]
    reshaped, sliced = shape_of(x) != (batch, seq, width), columns.numel() != width
    if len(chain_of(operand)) <= 2 + reshaped + sliced:
        return False
    with operand.graph.inserting_before(operand):
        if reshaped:
            x = emit(operand, aten.reshape.default, x, [batch, seq, width])
        replace(operand, to_heads(take(x, columns.reshape(-1), operand), shape, operand))
    return True


def _fuse(query: Projection, key: Projection, value: Projection) -> None:
    three = (query, key, value)
    first = min(projection.linear for projection in three)
    weights = (weight for projection in three for weight in projection.linear.all_input_nodes[1:])
    for weight in (weight for weight in weights if first < weight):  # asked anew for each: one may be made of another
        for node in needed_for(weight, lambda n: n < first):
            first.prepend(node)
    scale = _take_scale(query.heads)
    batch, _, seq, _ = shape_of(query.heads)
    with first.graph.inserting_before(first):
        parts = [take_columns(projection.linear, projection.columns.reshape(-1)) for projection in three]
        if scale is not None:
            parts[0] = [part and emit(first, aten.mul.Tensor, part, scale) for part in parts[0]]
        weight = emit(first, aten.cat.default, [weight for weight, _ in parts], -1)
        zeros = [emit(first, aten.zeros.default, [shape_of(w)[-1]], dtype=dtype_of(w)) for w, _ in parts]
        biases = [bias or none for (_, bias), none in zip(parts, zeros, strict=True)]
        bias = emit(first, aten.cat.default, biases) if biases != zeros else None
        qkv = emit(query.heads, operators.linear, first.args[0], weight, bias)
        qkv = emit(query.heads, aten.reshape.default, qkv, [batch, 1, seq, shape_of(weight)[-1]])
        split = emit(query.heads, operators.split_heads, qkv, len(query.columns), len(key.columns))
        picks = [emit(query.heads, operator.getitem, split, index) for index in range(3)]
    for projection, pick in zip(three, picks, strict=True):
        replace(projection.heads, pick)


def _take_scale(query: Node) -> float | None:
    """What the query's columns are to be multiplied by, taken from the masked attention that alone reads it, or None.

    The rotary embedding between them is linear; a norm undoes any scale before it, so that its weight takes the scale.
    """
    user, norm = _reader(query), None
    while is_call(user, *ROTARY, operators.rms_norm):
        norm = user if is_call(user, operators.rms_norm) else norm
        user = _reader(user)
    if user is None or not is_call(user, sdpa) or norm and not (norm.args[1] and is_constant(norm.args[1])):
        return None
    scale = user.kwargs.get("scale")
    scale = shape_of(query)[-1] ** -0.5 if scale is None else scale
    # A model's other graphs that attend to the same cache share one weight only where none is scaled.
    is_cache = is_call(user.args[1], *operators.CACHE_WRITES, aten.constant_pad_nd.default)
    if argument(user, 3) is None or scale == 1.0 or is_cache:
        return None
    user.kwargs = {**user.kwargs, "scale": 1.0}
    if norm is None:
        return scale
    with norm.graph.inserting_before(norm):
        norm.update_arg(1, emit(norm, aten.mul.Tensor, norm.args[1], scale))
    return None


def _reader(node: Node) -> Node | None:
    """What alone reads a value, as its first operand alone."""
    user = only_user(node)
    return user if user is not None and user.args[0] is node and user.args.count(node) == 1 else None
