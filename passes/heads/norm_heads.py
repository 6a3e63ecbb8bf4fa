"""Split, norm and turn the heads of a query or key in one kernel.

Before   q, k, v = split_heads(linear(x, w, b), heads);   q = rotary_by_matrix(rms_norm(q, wq), cos, sin, matrix);   …
After    q, k, v = linear_parts(x, w, b, 3);   q = norm_heads(q, wq, cos, sin, matrix, heads);   …   v = heads of v

As Flux has them. TTNN's kernel takes one image, and a matrix that turns each tile's columns. Only where both query and
key are normed and turned, and nothing else reads them before.
Source: Black Forest Labs 2024, https://github.com/black-forest-labs/flux
"""

import operator

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, only_user, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.fuse.linears import has_own_weights
from tt_dynamo.passes.rewrite import emit, is_constant


def fuse_norm_heads(graph: Graph, context: Context) -> int:
    """Fuse every query and key that match; returns how many pairs."""
    fused = 0
    for split in graph.find_nodes(op="call_function", target=operators.split_heads):
        linear, picks = _linear(split), {node.args[1]: node for node in split.users}
        turns = [_turn(picks[at]) for at in (0, 1) if at in picks]
        if linear is not None and len(picks) == 3 and len(turns) == 2 and None not in turns:
            _fuse(split, linear, picks, [turn for turn in turns if turn is not None])
            fused += 1
    dead_code(graph)
    return fused


def _linear(split: Node) -> Node | None:
    """The linear of one image that a split alone reads, with as many heads of keys as of queries."""
    x, heads, kv_heads = split.args
    while is_call(x, aten.reshape.default) and only_user(x):
        x = x.args[0]
    is_fit = has_own_weights(x) and only_user(x) and heads == kv_heads and shape_of(split.args[0])[:2] == (1, 1)
    return x if is_fit and len(shape_of(x)) == 3 and shape_of(x)[-1] % (3 * heads * TILE) == 0 else None


def _turn(pick: Node) -> Node | None:
    """The rotary embedding of the norm of these heads, each alone in reading what it does."""
    norm = only_user(pick)
    turn = only_user(norm) if norm is not None and is_call(norm, operators.rms_norm) else None
    if turn is None or not is_call(turn, operators.rotary_by_matrix) or turn.args[0] is not norm:
        return None
    _, cos, _, matrix = turn.args
    is_fit = norm.args[1] is not None and is_constant(norm.args[1]) and shape_of(cos)[:2] == (1, 1)
    return turn if is_fit and shape_of(matrix)[-1] == TILE else None


def _fuse(split: Node, linear: Node, picks: dict[int, Node], turns: list[Node]) -> None:
    heads = split.args[1]
    with linear.graph.inserting_before(linear):
        weight, bias = (*linear.args[1:], None)[:2]
        parts = emit(linear, operators.linear_parts, linear.args[0], weight, bias, 3)
        query, key, value = (emit(linear, operator.getitem, parts, at) for at in range(3))
        rows = emit(linear, aten.reshape.default, value, [1, *shape_of(value)])
        value = emit(linear, operators.split_lone_heads, rows, heads)
    replace(picks[2], value)
    for part, turn in zip((query, key), turns, strict=True):
        _, norm_weight, eps = turn.args[0].args
        with turn.graph.inserting_before(turn):
            wide = emit(turn, aten.reshape.default, norm_weight, [1, -1])
            wide = emit(turn, aten.repeat.default, wide, [1, heads])
            rows = emit(turn, aten.reshape.default, part, [1, *shape_of(part)])
            replace(turn, emit(turn, operators.norm_heads, rows, wide, *turn.args[1:], heads, eps))
