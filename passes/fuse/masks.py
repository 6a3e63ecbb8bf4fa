"""What masks of attention mean: which keys each query reads.

A mask may be a boolean, the additive mask made of it (0 where it is true, else a number that forbids), or the
attention_mask of either; a literal, or made of comparisons in any spelling. What integers count from is found by
computing them with a large random number for every value that only the run tells: in `arange(length) <= arange(1) +
position` the two sides differ by less than UNIT and that position's number. A condition is read as numbers all of which
are not above 0 where it holds. Where they say from which key to which each query reads, that is the mask's reach.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import (
    Literals,
    aten,
    dtype_of,
    is_call,
    literal_nodes,
    literal_value,
    needed_for,
    shape_of,
    values_of,
)
from tt_dynamo.passes.rewrite import emit
from tt_dynamo.passes.rows import literal

FORBIDDEN = torch.finfo(torch.float16).min  # added to scores, it and less count for nothing beside any other score
UNIT = 1 << 31  # random numbers are multiples of it, known ones are less than half of it
INTEGERS = (torch.int32, torch.int64)
MOVES = (aten.reshape.default, aten.view.default, aten.unsqueeze.default, aten.expand.default)
LINEAR = (*MOVES, aten.add.Tensor, aten.sub.Tensor, aten.add.Scalar, aten.sub.Scalar)
COMPARISONS: dict[Any, Callable[..., torch.Tensor]] = {  # what is not above 0 where they hold
    aten.le: lambda a, b: a - b,
    aten.lt: lambda a, b: a - b + 1,
    aten.ge: lambda a, b: b - a,
    aten.gt: lambda a, b: b - a + 1,
}
NEGATIONS = (aten.bitwise_not.default, aten.logical_not.default)
CONJUNCTIONS = (aten.bitwise_and.Tensor, aten.logical_and.default, aten.mul.Tensor)
DISJUNCTIONS = (aten.bitwise_or.Tensor, aten.logical_or.default)


class Reach(NamedTuple):
    """The keys that queries read: from position + first [query] to position + last [query].

    position: a value of one element or of one for each query; None for 0
    first: None for key 0 whatever the position
    """

    position: Node | None
    first: torch.Tensor | None
    last: torch.Tensor

    def allowed(self, keys: int) -> torch.Tensor:
        """Which of so many keys are read, [query, key] bool, for a position of 0."""
        places = torch.arange(keys)
        before = places <= self.last[:, None]
        return before if self.first is None else before & (self.first[:, None] <= places)

    def allows_all(self, keys: int) -> bool:
        """Whether every query reads every key, whatever values the graph is run with."""
        return self.position is self.first is None and bool((self.last == keys - 1).all())

    def window(self) -> int | None:
        """How many keys a query reads, the last one at its own place; as many as queries where it is all before it.

        None where that is not the same for all queries, or known at run time only.
        """
        queries = len(self.last)
        window = queries if self.first is None else queries - int(self.first[-1])
        expected = torch.ones(queries, queries, dtype=torch.bool).tril().triu(1 - window)
        fits = self.position is None and torch.equal(self.last, torch.arange(queries))
        return window if fits and torch.equal(self.allowed(queries), expected) else None


class Masks:
    """The masks of a graph; each is read once."""

    def __init__(self, graph: Graph) -> None:
        self.literals = literal_nodes(graph)
        self.integers: dict[Node, torch.Tensor | None] = {}
        self.randoms: dict[Node, torch.Tensor] = {}  # by UNIT, of values known at run time only
        self.reaches: dict[tuple[Node, tuple[int, ...]], Reach | None] = {}

    def reach(self, mask: Node, lengths: tuple[int, ...]) -> Reach | None:
        """What a mask lets queries read, where that is the same for all sequences and heads.

        lengths: of queries and keys, to which the mask is broadcast
        """
        if (mask, lengths) not in self.reaches:
            parts = None if 0 in lengths else self._parts(mask)
            self.reaches[mask, lengths] = None if parts is None else self._reach(parts, lengths)
        return self.reaches[mask, lengths]

    def choice(self, mask: Node) -> tuple[Node, float, float] | None:
        """The condition that a mask is made of, and what it adds to scores where that is true and where it is not."""
        if dtype_of(mask) == torch.bool:
            return mask, 0.0, -math.inf
        if not is_call(mask, aten.where.Scalar, aten.where.self):
            return None
        number, other = (number_of(choice, self.literals) for choice in mask.args[1:])
        return None if number is None or other is None else (mask.args[0], number, other)

    def numbers(self, value: Any) -> torch.Tensor | None:
        """An integer value with random numbers in it; None for what is no integer."""
        if not isinstance(value, Node):
            return torch.tensor(value) if isinstance(value, int) else None
        if value not in self.integers:
            for node in needed_for(value, lambda n: n in self.integers or n in self.literals):
                self.integers[node] = self._numbers(node)
        return self.integers[value]

    def _numbers(self, node: Node) -> torch.Tensor | None:
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor) or value.dtype not in INTEGERS:
            return None
        if not all(isinstance(size, int) for size in value.shape):
            return None
        known = literal_value(node, self.literals)
        if known is not None:
            return known.long()
        widens = is_call(node, aten._to_copy.default) and dtype_of(node) == torch.int64
        operands = {operand: self.numbers(operand) for operand in node.all_input_nodes}
        if (widens or is_call(node, *LINEAR)) and all(numbers is not None for numbers in operands.values()):
            return node.target(*map_arg(node.args, operands.__getitem__), **node.kwargs)
        generator = torch.Generator().manual_seed(len(self.randoms))
        self.randoms[node] = torch.randint(1, 1 << 30, value.shape, generator=generator)
        return self.randoms[node] * UNIT

    def _parts(self, node: Node, allows: bool = True, steps: int = 16) -> list[torch.Tensor] | None:
        """Numbers all of which are not above 0 where a condition is `allows`, or where a mask allows a key.

        None where they are unknown. steps: how many operations may lie between.
        """
        known = literal_value(node, self.literals)
        if known is not None:
            return _parts_of_literal(known, allows)
        packet = getattr(node.target, "overloadpacket", None)
        if packet in COMPARISONS:
            operands = [self.numbers(operand) for operand in node.args]
            if any(numbers is None for numbers in operands):
                return None
            above = COMPARISONS[packet](*operands)
            return [above if allows else 1 - above]
        parts: list[torch.Tensor] = []
        for operand, needed in self._operands(node, allows) if steps else []:
            inner = self._parts(operand, needed, steps - 1)
            if inner is None:
                return None
            parts += inner
        if is_call(node, *MOVES):
            return [node.target(part.expand(shape_of(node.args[0])), *node.args[1:]) for part in parts] or None
        return parts or None

    def _operands(self, node: Node, allows: bool) -> list[tuple[Node, bool]]:
        """What all must be true or false where a condition is `allows`, or where a mask allows a key."""
        operands = node.all_input_nodes
        if is_call(node, aten.where.Scalar, aten.where.self):
            condition, number, other = self.choice(node) or (node, 1.0, 1.0)
            is_mask = max(number, other) == 0 and min(number, other) <= FORBIDDEN
            return [(condition, number == 0)] if is_mask else []
        if is_call(node, operators.attention_mask, *MOVES):
            return [(operands[0], allows)] if all(is_call(x, aten.zeros.default) for x in operands[1:]) else []
        if is_call(node, *NEGATIONS, *(CONJUNCTIONS if allows else DISJUNCTIONS)):
            is_boolean = all(value.dtype == torch.bool for operand in operands for value in values_of(operand))
            return [(operand, allows != is_call(node, *NEGATIONS)) for operand in operands] if is_boolean else []
        return []

    def _reach(self, parts: list[torch.Tensor], lengths: tuple[int, ...]) -> Reach | None:
        allowed = torch.ones(lengths, dtype=torch.bool)
        bounds: dict[bool, tuple[Node, torch.Tensor]] = {}  # by whether they are the last key read
        for part in parts:
            planes = part.reshape(-1, *part.shape[-2:]) if part.ndim > 2 else part[None]
            if not bool((planes == planes[:1]).all()):
                return None
            plane = planes[0].expand(lengths)
            if plane.dtype == torch.bool or bool((plane.abs() < UNIT // 2).all()):
                allowed &= plane <= 0
                continue
            is_last, bound = self._bound(plane)
            if bound is None or is_last in bounds:
                return None
            bounds[is_last] = bound
        if not bounds:
            return _interval(allowed)
        positions = {position for position, _ in bounds.values()}
        first, last = (bounds[is_last][1] if is_last in bounds else None for is_last in (False, True))
        return (
            Reach(positions.pop(), first, last) if last is not None and len(positions) == 1 and allowed.all() else None
        )

    def _bound(self, part: torch.Tensor) -> tuple[bool, tuple[Node, torch.Tensor] | None]:
        """part [query, key] <= 0 as a bound of the keys read: whether of the last, its position and offsets [query].

        key <= position + offset: it is key - offset less the position; for a bound of the first the other way around.
        """
        queries, keys = part.shape
        random = (part + UNIT // 2) // UNIT
        fixed, sign = part - random * UNIT, -1 if random[0, 0] < 0 else 1
        counts_keys = torch.equal(fixed, fixed[:, :1] - sign * torch.arange(keys))
        for position, numbers in self.randoms.items() if counts_keys else ():
            numbers = sign * numbers.reshape(-1, 1)
            if len(numbers) in (1, queries) and torch.equal(random, numbers.expand(queries, keys)):
                return sign < 0, (position, sign * fixed[:, 0])
        return False, None


def seen_positions(mask: Node) -> tuple[Node | None, int | None]:
    """The positions [query], int64, up to which a mask lets queries read keys, and how many of the last ones.

    A value that the graph has already where it has one, else a new one in front of the mask. None for the number where
    all up to the position are read; None for both where the mask is any other.
    """
    masks = Masks(mask.graph)
    position, first, last = masks.reach(mask, shape_of(mask)[-2:]) or (None, None, torch.tensor(0))
    windows = {None} if first is None else set((last - first + 1).tolist())
    window = windows.pop()
    if position is None or windows or (window is not None and window < 1):
        return None, None
    wanted = last + UNIT * masks.randoms[position].reshape(-1)
    for node in itertools.takewhile(lambda node: node is not mask, mask.graph.nodes):
        numbers = masks.numbers(node) if [value.shape for value in values_of(node)] == [last.shape] else None
        if numbers is not None and torch.equal(numbers, wanted):
            return node, window
    with mask.graph.inserting_before(mask):
        positions = emit(mask, aten.reshape.default, position, [-1])
        if last.any() or shape_of(positions) != last.shape:
            positions = emit(mask, aten.add.Tensor, positions, literal(mask, last))
        return positions, window


def number_of(value: Any, literals: Literals) -> float | None:
    """The one number that a value is."""
    known = literal_value(value, literals) if isinstance(value, Node) else torch.tensor(value)
    if known is None or not known.numel() or bool(known.min() != known.max()):
        return None
    return float(known.min())


def _parts_of_literal(value: torch.Tensor, allows: bool) -> list[torch.Tensor] | None:
    if value.dtype == torch.bool:
        return [value != allows]
    forbids = value != 0
    return [forbids] if bool((value[forbids] <= FORBIDDEN).all()) else None


def _interval(allowed: torch.Tensor) -> Reach | None:
    """allowed [query, key], where it is all keys from one to another for each query."""
    keys = allowed.shape[1]
    first, last = allowed.int().argmax(1), keys - 1 - allowed.flip(1).int().argmax(1)
    reach = Reach(None, first if first.any() else None, last)
    return reach if torch.equal(allowed, reach.allowed(keys)) else None
