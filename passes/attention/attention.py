"""Fuse attention that a model spells out into one scaled dot product attention.

Before   scores = matmul(q, permute(k)) * scale + mask;   out = matmul(softmax(scores), v)
After    out = scaled_dot_product_attention(q, k, v, mask, scale=scale)

Only where the softmax runs over the keys and nothing else reads the scores. The scale may stand before the product as
well, on either side: matmul(q * scale, ...). Between product and softmax scores may go through, in this
order, several masks:

    scale     scores * s   scores / s   baddbmm(mask, q, k, alpha=s), also behind a mask (CodeGen)
              scores * scale [heads, 1, 1], which q takes
    cap       cap * tanh(scores / cap), which gives capped_attention
    mask      scores + mask   scores - mask   where(allowed, scores, -inf)   where(forbidden, -inf, scores)
    nothing   a cast between floats, a reshape of the leading dimensions

Every mask becomes one additive attention_mask of full query and key length that all layers share, or a flag.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, replace, shape_of
from tt_dynamo.ir.spec import LARGEST
from tt_dynamo.passes.attention.additive_masks import share_masks
from tt_dynamo.passes.attention.masks import NEGATIONS, number_of
from tt_dynamo.passes.movement import head_columns, source_of
from tt_dynamo.passes.normalize.canonicalize import share_equal
from tt_dynamo.passes.rewrite import DIV, MUL, Pattern, call, emit, is_node, is_number, variable
from tt_dynamo.passes.rows import LIMIT

PRODUCTS = (aten.matmul.default, aten.bmm.default)
SOFTMAXES = (aten.softmax.int, aten._softmax.default, aten._safe_softmax.default)
LOWEST = -1e30  # scores plus less than this are that number again, which is what a row that is masked whole needs
sdpa = aten.scaled_dot_product_attention.default


class Scores(NamedTuple):
    """scores = matmul(query, keys) * scale + the sum of masks; with a cap, cap * tanh(… / cap) of the scaled product.

    masks: each of the scores' rank where it is added. leading: [batch, heads] where something says them
    """

    query: Node
    keys: Node
    scale: float = 1.0
    cap: float | None = None
    masks: tuple[Node, ...] = ()
    leading: tuple[int, ...] | None = None


def fuse_attention(graph: Graph, context: Context) -> int:
    """Fuse every attention that matches; returns how many, and how many masks were made or became flags."""
    fused = 0
    for node in list(graph.nodes):
        attend = {sdpa: _at_rank_4, **dict.fromkeys(PRODUCTS, _attention)}.get(node.target)
        with graph.inserting_before(node):
            new = attend(node, context) if attend is not None and node.users else None
            if new is not None:
                replace(node, _reshaped(new, list(shape_of(node))))
                fused += 1
    masks = share_masks(graph)
    dead_code(graph)  # of what looked like attention first, too
    if fused:
        share_equal(graph)  # heads at rank 4 that something else has already
    return fused + masks


def _attention(node: Node, context: Context) -> Node | None:
    """The attention that a product of weights and values is."""
    weights, value = node.args
    softmax = softmax_of(weights)
    scores = None if softmax is None else read_scores(softmax.args[0])
    if scores is None:
        return None
    query, query_scale = split_scale(scores.query)
    keys, key_scale = split_scale(scores.keys)
    key = transposed(keys)
    if key is None or len(shape_of(query)) not in (3, 4):
        return None
    leading = scores.leading or leading_of((query, key, value), context)
    operands = [_with_heads(x, leading) for x in (query, key, value)]
    masks = [_with_heads(x, leading) for x in scores.masks]
    if any(len(shape_of(x)) != 4 for x in (*operands, *masks)) or not _fit(*operands):
        return None
    mask = functools.reduce(lambda a, b: emit(node, aten.add.Tensor, a, b), masks) if masks else None
    if mask is not None and dtype_of(mask) != dtype_of(query):
        mask = emit(mask, aten._to_copy.default, mask, dtype=dtype_of(query))
    scale = scores.scale * query_scale * key_scale
    if scores.cap is not None:
        if shape_of(key) != shape_of(value):
            return None
        return emit(node, operators.capped_attention, *operands, mask, scale, scores.cap)
    grouped = {"enable_gqa": True} if shape_of(operands[0])[1] != shape_of(operands[1])[1] else {}
    return emit(node, sdpa, *operands, mask, 0.0, False, scale=scale, **grouped)


def _at_rank_4(node: Node, context: Context) -> Node | None:
    """Attention [batch * heads, seq, head_dim] at rank 4, as TTNN takes it."""
    operands, (mask, *rest) = node.args[:3], node.args[3:] or (None,)
    if any(len(shape_of(x)) != 3 for x in operands) or len({shape_of(x)[0] for x in operands}) != 1:
        return None
    leading = leading_of(operands, context)
    operands = (_with_heads(x, leading) for x in operands)
    return emit(node, sdpa, *operands, mask and _with_heads(mask, leading), *rest, **node.kwargs)


def softmax_of(weights: Node) -> Node | None:
    """The softmax over the keys that gives these weights and that nothing else reads."""
    softmax = weights
    while same_scores(softmax) is not softmax and len(softmax.users) == 1:
        softmax = same_scores(softmax)
    rank = len(shape_of(softmax))
    is_over_keys = is_call(softmax, *SOFTMAXES) and softmax.args[1] % rank == rank - 1
    return softmax if is_over_keys and len(softmax.users) == 1 else None


def _fit(query: Node, key: Node, value: Node) -> bool:
    """Whether shapes are those of attention: equal leading dimensions, or fewer heads of both keys and values.

    Values may be wider than keys, which zeros fill.
    """
    q, k, v = (shape_of(x) for x in (query, key, value))
    return q[-1] == k[-1] <= v[-1] and k[:-1] == v[:-1] and k[:2] in (q[:2], (q[0], 1))


def leading_of(operands: Sequence[Node], context: Context) -> tuple[int, int]:
    """[batch, heads] of operands [batch * heads, seq, head_dim]: the batch makes all three heads of their sources."""
    count = shape_of(operands[0])[0]
    batches = (batch for batch in shape_of(source_of(operands[2]))[:-1] if batch > 1 and count % batch == 0)
    for batch in batches:
        if all(head_columns(_with_heads(x, (batch, count // batch)), context) is not None for x in operands):
            return batch, count // batch
    return 1, count


def _with_heads(x: Node, leading: tuple[int, ...]) -> Node:
    """x, or a mask for all heads, [batch * heads or 1, m, n] at rank 4; what has another shape as it is."""
    shape = shape_of(x)
    if len(shape) != 3 or shape[0] not in (1, math.prod(leading)):
        return x
    return _reshaped(x, [*(leading if shape[0] == math.prod(leading) else (1, 1)), *shape[1:]])


def _reshaped(node: Node, shape: list[int]) -> Node:
    source = node.args[0] if is_call(node, aten.reshape.default) else node
    found = next((x for x in (node, source) if list(shape_of(x)) == shape), None)
    return found or emit(node, aten.reshape.default, source, shape)


def transposed(node: Node) -> Node | None:
    """k of permute(k) with its last two dimensions exchanged, whatever else the permute does.

    Of products of einsum, dimensions of one stand behind the permute: it is permuted back, where moves meet.
    """
    if is_call(node, aten.reshape.default) and is_call(node.args[0], aten.permute.default):
        ranks = [*range(len(shape_of(node)))]
        return emit(node, aten.permute.default, node, [*ranks[:-2], ranks[-1], ranks[-2]])
    if not is_call(node, aten.permute.default):
        return None
    order = list(node.args[1])
    order[-2:] = order[:-3:-1]
    return node.args[0] if order == sorted(order) else emit(node, aten.permute.default, node.args[0], order)


def read_scores(node: Node, steps: int = 16) -> Scores | None:
    """What gives the scores `node` in at most so many steps that nothing else reads; None where anything else does."""
    scores = _read(node, steps) if len(node.users) == 1 and steps else None
    if scores is None or len(shape_of(node)) != 4:
        return scores
    leading = shape_of(node)[:2]
    return scores._replace(leading=leading) if scores.leading in (None, leading) else None


def _read(node: Node, steps: int) -> Scores | None:
    for found in PRODUCT.matches(node, {}):
        scores = Scores(found["query"], found["keys"], found.get("number", 1.0))
        return _masked(scores, node, found["mask"]) if "mask" in found else scores
    if same_scores(node) is not node:
        return read_scores(same_scores(node), steps - 1)
    for pattern, step in STEPS:
        for found in pattern.matches(node, {}):
            inner = found.pop("scores")
            before = read_scores(inner, steps - 1) if shape_of(inner) == shape_of(node) else None
            after = step(before, node, **found) if before is not None else None
            if after is not None:
                return after
    return None


def split_scale(node: Node) -> tuple[Node, float]:
    """x, s of x * s or x / (1 / s) with a number s; node, 1.0 otherwise."""
    for found in TIMES.matches(node, {}):
        return found["scores"], float(found["number"])
    for found in OVER.matches(node, {}):
        return found["scores"], 1.0 / found["number"]
    return node, 1.0


def same_scores(node: Node) -> Node:
    """x of a cast between floats, or of a reshape of the leading dimensions; the node itself otherwise."""
    if is_call(node, aten._to_copy.default, aten.reshape.default):
        x = node.args[0]
        if shape_of(x)[-2:] == shape_of(node)[-2:] and all(dtype_of(y).is_floating_point for y in (x, node)):
            return x
    return node


def _scaled(scores: Scores, node: Node, number: float) -> Scores | None:
    if number <= 0 and (scores.masks or scores.cap is not None):
        return None
    cap = None if scores.cap is None else scores.cap * number
    masks = tuple(_times(mask, number) for mask in scores.masks)
    return scores._replace(scale=scores.scale * number, cap=cap, masks=masks)


def _times(mask: Node, number: float) -> Node:
    """A mask times a number: what gave one of two numbers gives one of two others."""
    if is_call(mask, aten.where.Scalar):
        condition, *numbers = mask.args
        return emit(mask, aten.where.Scalar, condition, *(number * value for value in numbers))
    x, scale = split_scale(mask)
    if abs(scale * number) > LARGEST:  # which would be infinite, and NaN where the mask is zero
        x, scale = mask, 1.0
    return emit(mask, aten.mul.Tensor, x, scale * number)


def _scaled_by_head(scores: Scores, node: Node, factor: Node) -> Scores | None:
    """Scores times a number for each head, [heads, 1, 1], as cosine attention has them: the queries are multiplied."""
    rank, shape = len(shape_of(node)), shape_of(factor)
    if scores.masks or scores.cap is not None or len(shape_of(scores.query)) != rank or len(shape) > rank:
        return None
    if dtype_of(factor) != dtype_of(scores.query):
        return None
    return scores._replace(query=emit(node, aten.mul.Tensor, scores.query, factor))


def _capped(scores: Scores, node: Node) -> Scores | None:
    """tanh(scores): capped at 1; what is multiplied later scales both."""
    return None if scores.masks or scores.cap is not None else scores._replace(cap=1.0)


def _masked(scores: Scores, node: Node, mask: Node) -> Scores | None:
    have, rank = shape_of(mask), len(shape_of(node))
    if not 2 <= len(have) <= rank:
        return None
    if rank > 4:
        folded = _folded(node, mask, scores.leading)
        return folded and scores._replace(masks=(*scores.masks, folded))
    return scores._replace(masks=(*scores.masks, _reshaped(mask, [*[1] * (rank - len(have)), *have])))


def _folded(node: Node, mask: Node, leading: tuple[int, ...] | None) -> Node | None:
    """A mask of scores [batch, windows, heads, m, n] as one of [batch * windows, heads, m, n], as attention has them.

    Windows have masks of their own, so that one for every window of the batch is written; None of too many numbers.
    """
    parts = shape_of(node)[:-2]
    if leading is None or math.prod(parts[:-1]) != leading[0] or parts[-1] != leading[1]:
        return None
    have = [1] * (len(parts) - len(shape_of(mask)[:-2])) + list(shape_of(mask))
    if set(have[:-3]) == {1}:
        return _reshaped(mask, have[-4:])
    if leading[0] * math.prod(have[-3:]) > LIMIT:
        return None
    whole = emit(node, aten.expand.default, _reshaped(mask, have), [*parts[:-1], *have[-3:]])
    return emit(node, aten.reshape.default, whole, [leading[0], *have[-3:]])


def _filled(scores: Scores, node: Node, condition: Node, number: Node) -> Scores | None:
    """where(condition, number, scores), or the scores where it is true."""
    known = number_of(number)
    if known is None or not known < LOWEST:
        return None
    numbers = (known, 0.0) if node.args[1] is number else (0.0, known)
    while is_call(condition, *NEGATIONS) and dtype_of(condition.args[0]) == torch.bool:
        condition, numbers = condition.args[0], numbers[::-1]
    return _masked(scores, node, emit(node, aten.where.Scalar, condition, *numbers))


QUERY, KEYS, SCORES, MASK, CONDITION = (variable(name) for name in ("query", "keys", "scores", "mask", "condition"))
NODE, NUMBER = variable("number"), variable("number", is_number)
FACTOR = variable("factor", lambda value: is_node(value) and shape_of(value)[-2:] == (1, 1))
TIMES = call(MUL, SCORES, NUMBER)
OVER = call(DIV, SCORES, variable("number", lambda value: is_number(value) and value != 0))
PRODUCT = call(PRODUCTS, QUERY, KEYS) | call(aten.baddbmm.default, MASK, QUERY, KEYS, alpha=NUMBER)
STEPS: tuple[tuple[Pattern, Callable[..., Scores | None]], ...] = (
    (TIMES, _scaled),
    (OVER, lambda scores, node, number: _scaled(scores, node, 1.0 / number)),
    (call(MUL, SCORES, FACTOR), _scaled_by_head),
    (call(aten.tanh.default, SCORES), _capped),
    (call(aten.add.Tensor, SCORES, MASK), _masked),
    (call(aten.sub.Tensor, SCORES, MASK), lambda scores, node, mask: _masked(scores, node, _times(mask, -1.0))),
    (call(aten.where.self, CONDITION, NODE, SCORES) | call(aten.where.self, CONDITION, SCORES, NODE), _filled),
)
