"""What scores of attention go through between the product of query and key and the softmax.

    scale     scores * s   scores / s   baddbmm(mask, q, k, beta=1, alpha=s)
    cap       cap * tanh(scores / cap)
    mask      scores + mask   where(allowed, scores, -inf)   where(forbidden, -inf, scores)
    nothing   a cast between floats, a reshape of the leading dimensions

In this order, though each may be missing and masks may come several times. Filling with a number takes any below
-1e30 for a mask: added to scores it gives that number again, which is what a row that is masked whole needs.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import aten, dtype_of, insert, is_call, literal_value, literals_behind, shape_of

PRODUCTS = (aten.matmul.default, aten.bmm.default)
SCALINGS = (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar)
LOWEST = -1e30


@dataclasses.dataclass(frozen=True)
class Scores:
    """scores = cap(matmul(query, keys) * scale) + mask; leading: [batch, heads] where something says them."""

    query: Node
    keys: Node
    scale: float = 1.0
    cap: float | None = None
    mask: Node | None = None
    leading: tuple[int, ...] | None = None


def read_scores(graph: Graph, node: Node, steps: int = 16) -> Scores | None:
    """What gives the scores `node`, each step of which nothing else reads; None where it is anything else.

    Masks are put together at the graph's insertion point. steps: how many there may be.
    """
    if len(node.users) != 1 or not steps:
        return None
    if is_call(node, *PRODUCTS):
        query, keys = node.args
        return Scores(query, keys, leading=_leading(node))
    if is_call(node, aten.baddbmm.default):
        mask, query, keys = node.args
        if node.kwargs.get("beta", 1) != 1:
            return None
        scores = Scores(query, keys, float(node.kwargs.get("alpha", 1)))
        return _masked(graph, scores, node, mask)
    step = _STEPS.get(node.target) if node.op == "call_function" else None
    found = step(graph, node, steps - 1) if step is not None else None
    if found is not None and found.leading is None and _leading(node) is not None:
        found = dataclasses.replace(found, leading=_leading(node))
    return found


def _leading(node: Node) -> tuple[int, ...] | None:
    shape = shape_of(node)
    return shape[:2] if len(shape) == 4 else None


def split_scale(node: Node) -> tuple[Node, float]:
    """x, s of x * s or x / (1 / s) with a finite number s; node, 1.0 otherwise."""
    if is_call(node, *SCALINGS) and not node.kwargs:
        x, number = node.args
        divides = node.target in (aten.div.Tensor, aten.div.Scalar)
        if isinstance(number, (int, float)) and isinstance(x, Node) and (number or not divides):
            return x, 1.0 / number if divides else float(number)
    return node, 1.0


def uncast(node: Node) -> Node:
    """x of a cast of floats to floats; the node itself otherwise."""
    if is_call(node, aten._to_copy.default):
        x = node.args[0]
        if dtype_of(x).is_floating_point and dtype_of(node).is_floating_point:
            return x
    return node


def _scaled(graph: Graph, node: Node, steps: int) -> Scores | None:
    inner, scale = split_scale(node)
    if inner is node:
        return None
    if is_call(inner, aten.tanh.default):
        return _capped(graph, inner, scale, steps)
    scores = read_scores(graph, inner, steps)
    if scores is None or scores.mask is not None or scores.cap is not None:
        return None
    return dataclasses.replace(scores, scale=scores.scale * scale)


def _capped(graph: Graph, tanh: Node, cap: float, steps: int) -> Scores | None:
    """cap * tanh(scores / cap)."""
    inner, divisor = split_scale(tanh.args[0])
    if len(tanh.users) != 1 or len(tanh.args[0].users) != 1 or abs(divisor * cap - 1.0) > 1e-6:
        return None
    scores = read_scores(graph, inner, steps)
    if scores is None or scores.mask is not None or scores.cap is not None:
        return None
    return dataclasses.replace(scores, cap=cap)


def _added(graph: Graph, node: Node, steps: int) -> Scores | None:
    """scores + mask, whichever side the scores stand on."""
    if node.kwargs or not all(isinstance(argument, Node) for argument in node.args):
        return None
    for scored, mask in (node.args, node.args[::-1]):
        if scored.op != "call_function" or shape_of(scored) != shape_of(node):
            continue
        scores = read_scores(graph, scored, steps)
        if scores is not None:
            return _masked(graph, scores, node, mask)
    return None


def _masked(graph: Graph, scores: Scores, node: Node, mask: Node) -> Scores | None:
    if len(shape_of(mask)) > len(shape_of(node)) or len(shape_of(mask)) < 2:
        return None
    if scores.mask is not None:
        mask = insert(graph, aten.add.Tensor, (_ranked(graph, scores.mask, node), mask), like=node)
    elif dtype_of(mask) != dtype_of(scores.query):
        mask = insert(graph, aten._to_copy.default, (mask,), {"dtype": dtype_of(scores.query)}, like=mask)
    return dataclasses.replace(scores, mask=_ranked(graph, mask, node))


def _ranked(graph: Graph, mask: Node, scores: Node) -> Node:
    """A mask as it broadcasts with scores, at their rank."""
    have, rank = shape_of(mask), len(shape_of(scores))
    if len(have) >= rank:
        return mask
    return insert(graph, aten.reshape.default, (mask, [*[1] * (rank - len(have)), *have]), like=mask)


def _filled(graph: Graph, node: Node, steps: int) -> Scores | None:
    """where(condition, -inf, scores) or where(condition, scores, -inf)."""
    condition, *choices = node.args
    for index, scored in enumerate(choices):
        number = _number(choices[1 - index])
        if number is None or not number < LOWEST or not isinstance(scored, Node) or shape_of(scored) != shape_of(node):
            continue
        scores = read_scores(graph, scored, steps)
        if scores is None or len(shape_of(condition)) < 2:
            return None
        numbers = (0.0, number) if index == 0 else (number, 0.0)
        mask = insert(graph, aten.where.Scalar, (condition, *numbers), like=node)
        return _masked(graph, scores, node, mask)
    return None


def _number(choice: Any) -> float | None:
    if isinstance(choice, (int, float)):
        return float(choice)
    if choice.meta["val"].numel() != 1:
        return None
    value = literal_value(choice, literals_behind(choice))
    return None if value is None else float(value)


def _reshaped(graph: Graph, node: Node, steps: int) -> Scores | None:
    """A reshape of the leading dimensions, before or after masks."""
    source = node.args[0]
    before, after = shape_of(source), shape_of(node)
    if before[-2:] != after[-2:] or not {len(before), len(after)} <= {3, 4}:
        return None
    scores = read_scores(graph, source, steps)
    if scores is None or scores.mask is None:
        return scores
    have = shape_of(scores.mask)
    if len(have) < len(before) or have[:-2] not in (before[:-2], (1,) * (len(before) - 2)):
        return None
    leading = after[:-2] if have[:-2] == before[:-2] else (1,) * (len(after) - 2)
    mask = insert(graph, aten.reshape.default, (scores.mask, [*leading, *have[-2:]]), like=node)
    return dataclasses.replace(scores, mask=mask)


def _cast(graph: Graph, node: Node, steps: int) -> Scores | None:
    source = uncast(node)
    return None if source is node else read_scores(graph, source, steps)


_STEPS = {
    **dict.fromkeys(SCALINGS, _scaled),
    aten.add.Tensor: _added,
    aten.where.self: _filled,
    aten.reshape.default: _reshaped,
    aten._to_copy.default: _cast,
}
