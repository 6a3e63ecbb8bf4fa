"""Attention over two token streams by the kernel that takes and gives each by itself.

Before   y = attention(rotary(cat((q1, q2), 2), cos, sin), rotary(cat((k1, k2), 2), cos, sin), cat((v1, v2), 2))
         y1, y2 = y[:, :rows of the first], y[:, rows of the first:]
After    y1, y2 = joint_attention(rotary(q1, cos1, sin1), rotary(k1, cos1, sin1), v1, rotary(q2, cos2, sin2), …)

Streams are neither joined nor cut. Only without a mask, and where nothing else reads what is joined, nor what attention
gives. Where the parts of cos and sin are cut, all blocks share them.
Source of joint attention: Esser et al. 2024, https://arxiv.org/abs/2403.03206
"""

import operator

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, only_user, replace, shape_of
from tt_dynamo.passes.movement import cut_of
from tt_dynamo.passes.rewrite import argument, emit

ROTARY = (operators.rotary, operators.rotary_by_matrix)


def fuse_joint_attention(graph: Graph, context: Context) -> int:
    """Fuse every such attention; returns how many."""
    fused = 0
    for attention in graph.find_nodes(op="call_function", target=operators.attention):
        query, key, value, mask, is_causal, scale, *window = attention.args
        operands = [found for found in map(_streams, (query, key, value)) if found is not None]
        if mask is not None or is_causal or window or len(operands) < 3:
            continue
        rows = [[shape_of(stream)[2] for stream in streams] for streams, _ in operands]
        parts = _parts(attention, rows[0])
        if parts is None or not rows[0] == rows[1] == rows[2]:
            continue
        _fuse(attention, operands, parts, scale)
        fused += 1
    dead_code(graph)
    return fused


def _streams(x: Node) -> tuple[list[Node], Node | None] | None:
    """Heads of two streams [batch, heads, rows, head_dim], and the rotary embedding that turns both, or None."""
    turn = x if is_call(x, *ROTARY) else None
    joined = x if turn is None else turn.args[0]
    if not is_call(joined, aten.cat.default) or len(joined.args[0]) != 2 or argument(joined, 1, 0) % 4 != 2:
        return None
    return (joined.args[0], turn) if only_user(joined) and only_user(x) else None


def _parts(attention: Node, rows: list[int]) -> list[list[Node]] | None:
    """What reads the rows of each stream, where nothing else reads the attention."""
    whole = only_user(attention)
    whole = whole if whole is not None and is_call(whole, aten.reshape.default) else attention
    if shape_of(whole)[-2:] != shape_of(attention)[-2:]:
        return None
    parts: list[list[Node]] = [[], []]
    for user in whole.users:
        for part in list(user.users) if is_call(user, aten.split.Tensor, aten.split_with_sizes.default) else [user]:
            source, start = cut_of(part, -2) or (None, 0)
            stream = [0, rows[0]].index(start) if source is whole and start in (0, rows[0]) else None
            if stream is None or shape_of(part)[-2] != rows[stream]:
                return None
            parts[stream].append(part)
    return parts if all(parts) else None


def _fuse(
    attention: Node, operands: list[tuple[list[Node], Node | None]], parts: list[list[Node]], scale: float | None
) -> None:
    with attention.graph.inserting_before(attention):
        heads = [_turned(streams, turn, attention) for streams, turn in operands]
        made = [x for stream in zip(*heads, strict=True) for x in stream]
        both = emit(attention, operators.joint_attention, *made, scale)
        picks = [emit(attention, operator.getitem, both, index) for index in range(2)]
    for pick, readers in zip(picks, parts, strict=True):
        for part in readers:
            with part.graph.inserting_before(part):
                replace(part, emit(part, aten.reshape.default, pick, list(shape_of(part))))


def _turned(streams: list[Node], turn: Node | None, at: Node) -> list[Node]:
    """Each stream turned by its rows of the tables."""
    if turn is None:
        return streams
    (_, cos, sin, *matrix), start, turned = turn.args, 0, []
    for stream in streams:
        end = start + shape_of(stream)[2]
        tables = [_rows(table, start, end, at) for table in (cos, sin)]
        turned.append(emit(turn, turn.target, stream, *tables, *matrix))
        start = end
    return turned


def _rows(table: Node, start: int, end: int, at: Node) -> Node:
    """Rows of a table [1, 1, rows, head_dim], which may have been cut before."""
    for user in table.users:
        if is_call(user, aten.slice.Tensor) and user.args == (table, 2, start, end) and user < at:
            return user
    return emit(at, aten.slice.Tensor, table, 2, start, end)
