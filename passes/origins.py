"""Where the elements of a value come from, whatever moves, joins, pads and choices by literals brought them there.

A value that is moved from one other is computed twice on the numbers of that one's elements, which differ by their
count: what differs by it was moved, what does not differ is a literal.
"""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, is_call, is_literal, literal_value, needed_for, shape_of
from tt_dynamo.passes import movement
from tt_dynamo.passes.rewrite import FLOATS

MOVES = movement.MOVES | {
    *(aten.cat.default, aten.constant_pad_nd.default, aten.expand.default, aten.copy.default),
    *(operators.look_up, operators.pick),
}


class Origin(NamedTuple):
    """Where the elements of a value come from.

    numbers: for each, the number of the element of `source`; -1 where it is a literal. literals: which; 0 elsewhere
    """

    source: Node
    numbers: Tensor
    literals: Tensor

    def transposed(self) -> "Origin":
        return Origin(self.source, self.numbers.mT, self.literals.mT)

    def has_literals(self, number: float) -> bool:
        """Whether all literals are this number."""
        return bool((self.literals[self.numbers < 0] == number).all())

    def first_of_rows(self) -> Tensor | None:
        """The number of the first element of each row, -1 of a row of finite literals; None where a row is divided."""
        first = self.numbers[..., 0]
        follow = first.unsqueeze(-1) + torch.arange(self.numbers.shape[-1])
        expected = torch.where(first.unsqueeze(-1) >= 0, follow, -1)
        return first if torch.equal(self.numbers, expected) and bool(self.literals.isfinite().all()) else None


class Origins:
    """The origins of values of a graph; of values that are moved alike they share the numbers."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[Tensor, Tensor] | None] = {}

    def moved_by(self, value: Node, targets: Collection[Any]) -> bool:
        """Whether one of these operations is among the moves that end in `value`."""
        return any(move.target in targets for move in _moves_to(value))

    def of(self, value: Node) -> Origin | None:
        """None where an element is neither a literal nor moved from the one source, or there are too many."""
        moves = _moves_to(value)
        operands = dict.fromkeys(operand for move in moves for operand in move.all_input_nodes if operand not in moves)
        sources = [operand for operand in operands if not is_literal(operand)] if moves else [value]
        if len(sources) != 1 or not isinstance(sources[0].meta.get("val"), Tensor):
            return None
        if any(math.prod(shape_of(node)) > movement.LIMIT for node in (*moves, value)):
            return None
        names = {node: f"%{position}" for position, node in enumerate((*sources, *moves))}
        names |= {
            node: str(node.target) if node.op == "get_attr" else node.name for node in operands if node not in names
        }
        calls = ((move.target, str(map_arg((move.args, move.kwargs), names.__getitem__))) for move in moves)
        key = (shape_of(sources[0]), *calls)
        if key not in self._known:
            self._known[key] = _run(value, sources[0], moves)
        found = self._known[key]
        return found and Origin(sources[0], *found)


def _moves_to(value: Node) -> list[Node]:
    return needed_for(value, lambda node: not _moves(node)) if _moves(value) else []


def _run(value: Node, source: Node, moves: list[Node]) -> tuple[Tensor, Tensor] | None:
    """The numbers and literals of an `Origin`."""
    count, results = math.prod(shape_of(source)), []
    for start in (0, count):
        dtype = torch.float32 if 2 * count < 1 << 24 else torch.float64
        values: dict[Node, Any] = {source: torch.arange(start, start + count, dtype=dtype).reshape(shape_of(source))}
        for move in moves:
            for operand in move.all_input_nodes:
                if operand not in values:
                    values[operand] = literal_value(operand)
            if any(values[operand] is None for operand in move.all_input_nodes):
                return None
            args, kwargs = map_arg((move.args, move.kwargs), values.__getitem__)
            values[move] = args[0] if is_call(move, aten._to_copy.default) else move.target(*args, **kwargs)
        results.append(values[value])
    first, second = results
    is_moved, is_same = second - first == count, (first == second) | first.isnan()
    if not bool((is_moved | is_same).all()):
        return None
    return torch.where(is_moved, first, -1).to(torch.int64), torch.where(is_moved, 0.0, first)


def _moves(node: Node) -> bool:
    """Whether a node moves floats: a choice by literals does, and so may a product with literals, which may be ones."""
    if node.op != "call_function" or is_literal(node):
        return False
    if is_call(node, aten.where.self):
        return is_literal(node.args[0])
    if is_call(node, aten.gather.default):
        return is_literal(node.args[2]) and node.meta["val"].is_floating_point()
    if is_call(node, aten.mul.Tensor):
        return any(isinstance(x, Node) and is_literal(x) for x in node.args)
    if is_call(node, aten._to_copy.default):
        return {node.meta["val"].dtype, node.args[0].meta["val"].dtype} <= FLOATS
    return is_call(node, *MOVES) and isinstance(node.meta.get("val"), Tensor)


def is_zero(value: Any) -> bool:
    """Whether a node is the number 0."""
    number = literal_value(value) if isinstance(value, Node) and not shape_of(value) else None
    return number is not None and not bool(number)
