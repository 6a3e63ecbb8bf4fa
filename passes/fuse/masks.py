"""What masks of attention mean: which keys each query reads, said by positions.

    allows_all(mask)             all of them
    causal_positions(mask)       key <= position                                  → position [query]
    window_positions(mask)       position - window < key <= position              → position [query], window

A mask may be a boolean, the additive mask made of it (0 where it is true, else -inf or the smallest number), or the
attention_mask of either; expanded, reshaped, and made of comparisons in any spelling. Both sides of a comparison are
read as a sum of a literal, whose contents are known, and of values that are known at run time only: for a decode step
the position in the cache, `arange(length) <= arange(1) + position`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import (
    Literals,
    aten,
    dtype_of,
    insert,
    is_call,
    literal_nodes,
    literal_value,
    literals_behind,
    needed_for,
    shape_of,
    values_of,
)

INTEGERS = (torch.int32, torch.int64)
RESHAPES = (aten.reshape.default, aten.view.default, aten.unsqueeze.default)
CONJUNCTIONS = (aten.bitwise_and.Tensor, aten.logical_and.default, aten.mul.Tensor)
ADDITIONS = (aten.add.Tensor, aten.sub.Tensor, aten.add.Scalar, aten.sub.Scalar)
SUMMED = (*ADDITIONS, *RESHAPES, aten.expand.default, aten._to_copy.default)  # what a sum is read through
MOST_LEAVES = 8
DISJUNCTIONS = (aten.bitwise_or.Tensor, aten.logical_or.default)
NEGATIONS = (aten.bitwise_not.default, aten.logical_not.default)
# A comparison of a with b as the sign and the summand of sign * (a - b) + summand <= 0.
COMPARISONS = {
    aten.le.Tensor: (1, 0),
    aten.le.Scalar: (1, 0),
    aten.lt.Tensor: (1, 1),
    aten.lt.Scalar: (1, 1),
    aten.ge.Tensor: (-1, 0),
    aten.ge.Scalar: (-1, 0),
    aten.gt.Tensor: (-1, 1),
    aten.gt.Scalar: (-1, 1),
}


class Leaf(NamedTuple):
    """An integer value known at run time, `sign` times, in the shape in which it broadcasts into a sum."""

    node: Node
    sign: int
    shape: tuple[int, ...]


class Sum(NamedTuple):
    """An integer value: a literal and leaves, which broadcast with each other."""

    literal: torch.Tensor
    leaves: tuple[Leaf, ...]


class Reach(NamedTuple):
    """The keys that queries read: from leaf + first [query] to leaf + last [query]; first None: from key 0 on."""

    leaf: Leaf
    first: torch.Tensor | None
    last: torch.Tensor


def allows_all(mask: Node) -> bool:
    """Whether a mask lets every query read every key, whatever values the graph is run with."""
    found = condition_of(mask)
    literals = literals_behind(mask)
    return found is not None and all(_always(part, allows, literals) for part, allows in _conjuncts(*found))


def causal_positions(mask: Node) -> Node | None:
    """The positions [query], int64, of a mask that lets every query read keys up to its position; None for any other.

    A value that the graph has already where it has one, else a new one in front of the mask.
    """
    reach = _reach(mask)
    return _positions(mask, reach) if reach is not None and reach.first is None else None


def window_positions(mask: Node) -> tuple[Node, int] | None:
    """The positions [query] and the window of a mask that lets queries read `window` keys, the last at their position.

    None for any other mask.
    """
    reach = _reach(mask)
    if reach is None or reach.first is None:
        return None
    windows = set((reach.last - reach.first + 1).tolist())
    if len(windows) != 1 or min(windows) < 1:
        return None
    return _positions(mask, reach), windows.pop()


def condition_of(mask: Node) -> tuple[Node, bool] | None:
    """The boolean that a mask is made of, before it was broadcast, and whether true allows a key or forbids it.

    A boolean mask is its own condition. None for a mask that adds anything else.
    """
    literals = literals_behind(mask)
    node, allows = mask, True
    while True:
        if is_call(node, aten.where.Scalar, aten.where.self):
            chosen = [_number(choice, literals) for choice in node.args[1:]]
            if not any(_forbids(*pair) for pair in (chosen, chosen[::-1])):
                return None
            node, allows = node.args[0], _forbids(*chosen)
        elif _broadcasts(node):
            node = node.args[0]
        else:
            return (node, allows) if dtype_of(node) == torch.bool else None


def _number(choice: Any, literals: Literals) -> float | None:
    """The one number that a choice of `where` is."""
    if isinstance(choice, (int, float)):
        return float(choice)
    value = literal_value(choice, literals)
    if value is None or not value.numel() or not bool((value == value.reshape(-1)[0]).all()):
        return None
    return float(value.reshape(-1)[0])


def _forbids(kept: float | None, other: float | None) -> bool:
    """Whether scores plus `kept` are the scores, and plus `other` count for nothing beside any other score."""
    return kept == 0 and other is not None and other <= torch.finfo(torch.float16).min


def _broadcasts(node: Node) -> bool:
    """Whether a mask is its first operand, broadcast at the most."""
    if is_call(node, operators.attention_mask):
        return len(node.args) == 1 or _is_zeros(node.args[1])
    return is_call(node, aten.expand.default) or (is_call(node, *RESHAPES) and _adds_ones(node))


def _is_zeros(node: Any) -> bool:
    return node is None or is_call(node, aten.zeros.default)


def _adds_ones(node: Node) -> bool:
    """Whether a reshape puts dimensions of one in front and nothing else: it broadcasts as what it reshapes."""
    before, after = shape_of(node.args[0]), shape_of(node)
    extra = len(after) - len(before)
    return extra >= 0 and after == (1,) * extra + before


def _reach(mask: Node) -> Reach | None:
    """What a mask lets queries read, where it says so by comparing keys with one run-time position."""
    shape = shape_of(mask)
    found = condition_of(mask)
    if found is None or len(shape) < 2 or any(isinstance(size, torch.SymInt) for size in shape):
        return None
    literals = literals_behind(mask)
    bounds = []
    for part, allows in _conjuncts(*found):
        if _always(part, allows, literals):
            continue
        bound = _bound(part, allows, shape[-2:], literals)
        if bound is None:
            return None
        bounds.append(bound)
    leaves = {leaf for leaf, _, _ in bounds}
    last = [offsets for _, offsets, is_last in bounds if is_last]
    first = [offsets for _, offsets, is_last in bounds if not is_last]
    if len(leaves) != 1 or len(last) != 1 or len(first) > 1:
        return None
    return Reach(leaves.pop(), first[0] if first else None, last[0])


def _conjuncts(condition: Node, allows: bool) -> list[tuple[Node, bool]]:
    """Conditions that must all be as given (true where they allow) for a condition to allow a key."""
    pending, found = [(condition, allows)], {}
    while pending:
        part = pending.pop()
        if part in found:
            continue
        found[part] = True
        condition, allows = part
        operands = [a for a in condition.all_input_nodes if values_of(a) and values_of(a)[0].dtype == torch.bool]
        if len(operands) == 2 and is_call(condition, *(CONJUNCTIONS if allows else DISJUNCTIONS)):
            pending += [(operand, allows) for operand in operands]
        elif is_call(condition, *NEGATIONS) and len(operands) == 1:
            pending.append((operands[0], not allows))
        elif _broadcasts(condition):
            pending.append((operands[0], allows))
        else:
            continue
        found[part] = False
    return [part for part, is_last in found.items() if is_last]


def _always(part: Node, allows: bool, literals: Literals) -> bool:
    """Whether a condition is `allows` everywhere: by its contents, or as both sides count from the same number."""
    known = literal_value(part, literals)
    if known is not None:
        return bool((known == allows).all())
    compared = _compared(part, allows, literals)
    return compared is not None and not compared.leaves and bool((compared.literal <= 0).all())


def _compared(node: Node, allows: bool, literals: Literals) -> Sum | None:
    """A comparison that is `allows` where the sum is not above 0; numbers on both sides cancel."""
    if not is_call(node, *COMPARISONS) or node.kwargs:
        return None
    sign, summand = COMPARISONS[node.target]
    if not allows:  # x > 0, which is 1 - x <= 0
        sign, summand = -sign, 1 - summand
    a, b = (_sum(argument, literals) for argument in node.args)
    if a is None or b is None:
        return None
    left = [leaf._replace(sign=sign * leaf.sign) for leaf in a.leaves]
    for leaf in (leaf._replace(sign=-sign * leaf.sign) for leaf in b.leaves):
        opposite = leaf._replace(sign=-leaf.sign)
        if torch.Size(leaf.shape).numel() == 1 and opposite in left:
            left.remove(opposite)
        else:
            left.append(leaf)
    return Sum(sign * (a.literal - b.literal) + summand, tuple(left))


def _bound(
    node: Node, allows: bool, shape: tuple[int, ...], literals: Literals
) -> tuple[Leaf, torch.Tensor, bool] | None:
    """A comparison as a bound of the keys: leaf + offsets [query] is the last key read (or the first)."""
    queries, keys = shape
    compared = _compared(node, allows, literals)
    if compared is None or len(compared.leaves) != 1:
        return None
    leaf, literal = compared.leaves[0], compared.literal  # literal + leaf <= 0
    if not _one_for_each(leaf.shape, queries):
        return None
    literal = literal.reshape(literal.shape[-2:]) if torch.Size(literal.shape[:-2]).numel() == 1 else literal
    if literal.ndim > 2:
        return None
    literal = literal.expand(queries, keys)
    # key <= position: literal is key - offset and the leaf is subtracted; position <= key: the other way around
    along = torch.arange(keys) * -leaf.sign
    offsets = (literal - along)[:, 0]
    if abs(leaf.sign) != 1 or not torch.equal(literal, offsets[:, None] + along):
        return None
    return leaf._replace(sign=1), leaf.sign * offsets, leaf.sign < 0


def _one_for_each(shape: tuple[int, ...], queries: int) -> bool:
    """Whether a leaf of this shape is one number, or one for each query along the last but one dimension."""
    if torch.Size(shape).numel() == 1:
        return True
    return torch.Size(shape).numel() == queries and len(shape) >= 2 and shape[-2] == queries


def _sum(value: Any, literals: Literals, sums: dict[Node, Sum | None] | None = None) -> Sum | None:
    """An integer value as a literal and leaves; None for what is no integer or counts in another way.

    sums: those known already, and those found on the way.
    """
    sums = {} if sums is None else sums
    if isinstance(value, Node):
        for node in needed_for(value, lambda n: n in sums or n in literals or not is_call(n, *SUMMED)):
            sums[node] = _sum_of_parts(node, literals, sums)
    return sums[value] if value in sums else _summand(value, literals)


def _summand(value: Any, literals: Literals) -> Sum | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return Sum(torch.tensor(value), ())
    if not isinstance(value, Node) or not isinstance(value.meta.get("val"), torch.Tensor):
        return None
    if dtype_of(value) not in INTEGERS:
        return None
    known = literal_value(value, literals)
    return Sum(torch.tensor(0), (Leaf(value, 1, shape_of(value)),)) if known is None else Sum(known.long(), ())


def _sum_of_parts(node: Node, literals: Literals, sums: dict[Node, Sum | None]) -> Sum | None:
    whole = _summand(node, literals)
    if whole is None or not whole.leaves or not is_call(node, *SUMMED):
        return whole
    a, *rest = (sums[part] if part in sums else _summand(part, literals) for part in node.args[:2])
    if is_call(node, *ADDITIONS):
        b = rest[0]
        if a is None or b is None or node.kwargs or len(node.args) != 2 or len(a.leaves + b.leaves) > MOST_LEAVES:
            return whole
        sign = 1 if node.target in (aten.add.Tensor, aten.add.Scalar) else -1
        negated = tuple(leaf._replace(sign=sign * leaf.sign) for leaf in b.leaves)
        return Sum(a.literal + sign * b.literal, a.leaves + negated)
    if is_call(node, aten._to_copy.default):
        return a if dtype_of(node) == torch.int64 else whole
    return a if a is None else _shaped(a, node)


def _shaped(inner: Sum, node: Node) -> Sum | None:
    """The sum after a reshape or an expand."""
    before, after = shape_of(node.args[0]), shape_of(node)
    if node.target is aten.expand.default:
        return inner
    if any(torch.Size(leaf.shape).numel() not in (1, torch.Size(before).numel()) for leaf in inner.leaves):
        return None  # a leaf that was broadcast before it was reshaped
    leaves = (leaf._replace(shape=after if torch.Size(leaf.shape).numel() > 1 else ()) for leaf in inner.leaves)
    literal = inner.literal
    return Sum(literal if literal.numel() == 1 else literal.expand(before).reshape(after), tuple(leaves))


def _positions(mask: Node, reach: Reach) -> Node:
    """leaf + last [query]: a node in front of the mask that is just that, or a new one."""
    graph, leaf = mask.graph, reach.leaf.node
    found = _existing(graph, mask, reach)
    if found is not None:
        return found
    with graph.inserting_before(mask):
        x = leaf
        if shape_of(leaf):
            x = insert(graph, aten.reshape.default, (leaf, [torch.Size(shape_of(leaf)).numel()]), like=mask)
        return _plus(graph, x, reach.last, mask)


def _plus(graph: Graph, x: Node, offsets: torch.Tensor, like: Node) -> Node:
    """x, one number or [query], plus offsets [query], which are consecutive for one number, else all the same."""
    start = int(offsets[0])
    if bool((offsets == start).all()) and shape_of(x) == tuple(offsets.shape):
        return insert(graph, aten.add.Tensor, (x, start), like=like) if start else x
    numbers = insert(graph, aten.arange.start, (start, start + len(offsets)), {"dtype": torch.int64}, like=like)
    return insert(graph, aten.add.Tensor, (numbers, x), like=like)


def _existing(graph: Graph, mask: Node, reach: Reach) -> Node | None:
    literals = literal_nodes(graph)
    sums: dict[Node, Sum | None] = {}
    wanted = tuple(reach.last.shape)
    pending, seen = [reach.leaf.node], set()
    while pending:
        node = pending.pop(0)
        if node in seen or not isinstance(node.meta.get("val"), torch.Tensor) or not node < mask:
            continue
        seen.add(node)
        value = _sum(node, literals, sums)
        if value is None or [leaf.node for leaf in value.leaves] != [reach.leaf.node] or value.leaves[0].sign != 1:
            continue
        if shape_of(node) == wanted and torch.equal(value.literal.expand(wanted), reach.last):
            return node
        pending.extend(node.users)
    return None
