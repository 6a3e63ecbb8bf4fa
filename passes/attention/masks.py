"""What masks of attention mean: which keys each query reads.

A mask may be a boolean, the additive mask made of it (0 where it is true, else a number that forbids), or the
attention_mask of either; a literal, or made of comparisons in any spelling. What integers count from is found by
computing them with a large random number for every value that only the run tells: the sides of `arange(length) <=
arange(1) + position` differ by that of the position and less than UNIT. A condition is read as numbers all of which are
not above 0 where it holds. Where they say from which key to which each query reads, that is the mask's reach.
"""

import itertools
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, dtype_of, is_call, literal_value, needed_for, shape_of
from tt_dynamo.passes.rewrite import emit
from tt_dynamo.passes.rows import literal

FORBIDDEN = torch.finfo(torch.float16).min  # added to scores, it and less count for nothing beside any other score
UNIT = 1 << 31  # random numbers are multiples of it, known ones are less than half of it
UNKNOWN = torch.tensor(UNIT)  # no random number
INTEGERS = (torch.int32, torch.int64)
MOVES = (aten.reshape.default, aten.view.default, aten.unsqueeze.default, aten.expand.default)
LINEAR = (*MOVES, aten.add.Tensor, aten.sub.Tensor, aten.add.Scalar, aten.sub.Scalar, aten._to_copy.default)
# A comparison of a with b as the sign and the summand of sign * (a - b) + summand <= 0.
COMPARISONS = {aten.le: (1, 0), aten.lt: (1, 1), aten.ge: (-1, 0), aten.gt: (-1, 1)}
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

    def window(self) -> int | None:
        """How many keys a query reads, the last one at its own place; as many as queries where it is all before it.

        None where that is not the same for all queries, or known at run time only.
        """
        queries = len(self.last)
        window = queries if self.first is None else queries - int(self.first[-1])
        expected = torch.ones(queries, queries, dtype=torch.bool).tril().triu(1 - window)
        at_own_place = self.position is None and torch.equal(self.last, torch.arange(queries))
        return window if at_own_place and torch.equal(self.allowed(queries), expected) else None


class Masks:
    """The masks of a graph; each is read once."""

    def __init__(self, graph: Graph) -> None:
        self.integers: dict[Node, torch.Tensor | None] = {}
        self.randoms: dict[Node, torch.Tensor] = {}  # by UNIT, of values known at run time only
        self.reaches: dict[tuple[Node, tuple[int, ...]], Reach | None] = {}

    def reach(self, mask: Node, lengths: tuple[int, ...]) -> Reach | None:
        """What a mask lets queries read, where that is the same for all sequences and heads.

        lengths: of queries and keys, to which the mask is broadcast
        """
        if (mask, lengths) not in self.reaches:
            self.reaches[mask, lengths] = None if 0 in lengths else self._reach(self._parts(mask), lengths)
        return self.reaches[mask, lengths]

    def choice(self, mask: Node) -> tuple[Node, float, float] | None:
        """The condition that a mask is made of, and what it adds to scores where that is true and where it is not."""
        if dtype_of(mask) == torch.bool:
            return mask, 0.0, -torch.inf
        if not is_call(mask, aten.where.Scalar, aten.where.self):
            return None
        number, other = (number_of(choice) for choice in mask.args[1:])
        return None if number is None or other is None else (mask.args[0], number, other)

    def numbers(self, value: Any) -> torch.Tensor | None:
        """An integer value with random numbers in it; None for what is no integer."""
        if not isinstance(value, Node):
            return torch.tensor(value) if isinstance(value, int) else None
        if value not in self.integers:
            for node in needed_for(value, lambda n: n in self.integers or literal_value(n) is not None):
                self.integers[node] = self._numbers(node)
        return self.integers[value]

    def _numbers(self, node: Node) -> torch.Tensor | None:
        value = node.meta.get("val")
        if getattr(value, "dtype", None) not in INTEGERS or not all(isinstance(size, int) for size in value.shape):
            return None
        known = literal_value(node)
        if known is not None:
            return known.long()
        operands = {operand: self.numbers(operand) for operand in node.all_input_nodes}
        is_sum = value.dtype == torch.int64 and is_call(node, *LINEAR)
        if is_sum and all(numbers is not None for numbers in operands.values()):
            return node.target(*map_arg(node.args, operands.__getitem__), **node.kwargs)
        generator = torch.Generator().manual_seed(len(self.randoms))
        self.randoms[node] = torch.randint(2, 1 << 30, value.shape, generator=generator)
        return self.randoms[node] * UNIT

    def _parts(self, node: Node, allows: bool = True, steps: int = 16) -> list[torch.Tensor]:
        """Numbers all of which are not above 0 where a condition is `allows`, or where a mask allows a key.

        steps: how many operations may lie between.
        """
        known = literal_value(node)
        if known is not None:
            forbids = known != (allows if known.dtype == torch.bool else 0)
            is_mask = known.dtype == torch.bool or bool((known[forbids] <= FORBIDDEN).all())
            return [forbids if is_mask else UNKNOWN]
        packet = getattr(node.target, "overloadpacket", None)
        if packet in COMPARISONS:
            sign, summand = COMPARISONS[packet]
            a, b = (self.numbers(operand) for operand in node.args)
            part = UNKNOWN if a is None or b is None else sign * (a - b) + summand
            return [part if allows else 1 - part]
        operands = self._operands(node, allows) if steps else []
        parts = [part for operand, needed in operands for part in self._parts(operand, needed, steps - 1)]
        if is_call(node, *MOVES):
            parts = [node.target(part.expand(shape_of(node.args[0])), *node.args[1:]) for part in parts]
        return parts or [UNKNOWN]

    def _operands(self, node: Node, allows: bool) -> list[tuple[Node, bool]]:
        """What all must be true or false where a condition is `allows`, or where a mask allows a key."""
        operands = node.all_input_nodes
        if is_call(node, aten.where.Scalar, aten.where.self):
            condition, number, other = self.choice(node) or (node, 1.0, 1.0)
            is_mask = max(number, other) == 0 and min(number, other) <= FORBIDDEN
            return [(condition, number == 0)] if is_mask else []
        if is_call(node, operators.attention_mask, *MOVES):
            return [(operands[0], allows)] if all(is_call(x, aten.zeros.default) for x in operands[1:]) else []
        is_logic = is_call(node, *NEGATIONS, *(CONJUNCTIONS if allows else DISJUNCTIONS))
        if is_logic and all(dtype_of(value) == torch.bool for value in (node, *operands)):
            return [(operand, allows != is_call(node, *NEGATIONS)) for operand in operands]
        return []

    def _reach(self, parts: list[torch.Tensor], lengths: tuple[int, ...]) -> Reach | None:
        allowed = torch.ones(lengths, dtype=torch.bool)
        bounds = []
        for part in parts:
            planes = part.reshape(-1, *part.shape[-2:]) if part.ndim > 2 else part[None]
            plane = planes[0].expand(lengths)
            if not bool((planes == planes[:1]).all()):
                return None
            if plane.dtype == torch.bool or bool((plane.abs() < UNIT // 2).all()):
                allowed &= plane <= 0
            else:
                bounds.append(self._bound(plane))
        if not bounds:
            first, last = allowed.int().argmax(1), lengths[1] - 1 - allowed.flip(1).int().argmax(1)
            reach = Reach(None, first if first.any() else None, last)
            return reach if torch.equal(allowed, reach.allowed(lengths[1])) else None
        match sorted(bounds, key=lambda bound: bound[0]) if bool(allowed.all()) else []:
            case [(True, Node() as position, last)]:
                return Reach(position, None, last)
            case [(False, Node() as start, first), (True, Node() as position, last)] if start is position:
                return Reach(position, first, last)
        return None

    def _bound(self, part: torch.Tensor) -> tuple[bool, Node | None, torch.Tensor]:
        """part [query, key] <= 0 as a bound of the keys read: whether of the last, its position and offsets [query].

        key <= position + offset: it is key - offset less the position; for a bound of the first the other way around.
        """
        queries, keys = part.shape
        random = (part + UNIT // 2) // UNIT
        sign = -1 if random[0, 0] < 0 else 1
        offsets = sign * (part - random * UNIT)[:, 0]
        counts_keys = torch.equal(part - random * UNIT, sign * (offsets[:, None] - torch.arange(keys)))
        for position, numbers in self.randoms.items() if counts_keys else ():
            numbers = sign * numbers.reshape(-1, 1)
            if len(numbers) in (1, queries) and torch.equal(random, numbers.expand(queries, keys)):
                return sign < 0, position, offsets
        return False, None, offsets


def seen_positions(masks: Masks, mask: Node, keys: int) -> tuple[Node | None, int | None]:
    """The positions [query], int64, up to which a mask lets queries read so many keys, and how many of the last ones.

    A value that the graph has already where it has one, else a new one in front of the mask. None for the number where
    all up to the position are read; None for both where the mask is any other.
    """
    queries = (1, 1, *shape_of(mask))[-2]
    position, first, last = masks.reach(mask, (queries, keys)) or (None, None, torch.tensor(0))
    windows = {None} if first is None else set((last - first + 1).tolist())
    window = windows.pop()
    if position is None or windows or (window is not None and window < 1):
        return None, None
    wanted = last + UNIT * masks.randoms[position].reshape(-1)
    for node in itertools.takewhile(lambda node: node is not mask, mask.graph.nodes):
        value = node.meta.get("val")
        numbers = masks.numbers(node) if isinstance(value, torch.Tensor) and value.shape == last.shape else None
        if numbers is not None and torch.equal(numbers, wanted):
            return node, window
    with mask.graph.inserting_before(mask):
        positions = emit(mask, aten.reshape.default, position, [-1])
        if last.any() or shape_of(positions) != last.shape:
            positions = emit(mask, aten.add.Tensor, positions, literal(mask, last))
        masks.integers[positions] = wanted
        return positions, window


def number_of(value: Any) -> float | None:
    """The one number that a value is."""
    known = literal_value(value) if isinstance(value, Node) else torch.tensor(value)
    if known is None or not known.numel() or bool(known.min() != known.max()):
        return None
    return float(known.min())
