"""Rules that replace one node of a graph each: patterns as data, and one driver for all rules.

A pattern reads as the expression that it matches, last operation outermost:

    x, eps = variable("x"), variable("eps", is_number)
    root = call(aten.rsqrt.default, call(aten.add.Tensor, call(aten.mean.dim, call(MUL, x, x), [-1], True), eps))

Operands of sums and products match in either order, and numbers within 1e-5. Arguments that a pattern leaves out must
have their defaults. The same variable must stand for the same value everywhere. `cast(p)` is p with or without a cast
of floats behind it, `once(p)` is p where one node alone reads it, and `p | q` is p, or else q: q may leave out p's last
step. Rules that have such last steps are asked about the last node first.
"""

import collections
import dataclasses
import functools
import itertools
import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import meta
from tt_dynamo.ir.graph import aten, dead_code, dtype_of, insert, is_call, is_made_of, is_parameter, mutates, replace

FLOATS = {torch.float32, torch.bfloat16, torch.float16}
COMMUTE = {aten.add.Tensor, aten.mul.Tensor}
MUL, DIV = (aten.mul.Tensor, aten.mul.Scalar), (aten.div.Tensor, aten.div.Scalar)
ADD = (aten.add.Tensor, aten.add.Scalar)
VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)  # whatever ATen calls a reshape
MAX_SWEEPS = 32  # each is linear in the graph; chains of rewrites end in a few

log = logging.getLogger(__name__)

Found = dict[str, Any]
Rule = Callable[[Node], "Node | None"]


def emit(like: Node, target: Any, *args: Any, **kwargs: Any) -> Node:
    """A new call at the graph's insertion point, with the source facts of `like`."""
    return insert(like.graph, target, args, kwargs, like=like)


def argument(node: Node, position: int, default: Any = None) -> Any:
    """An argument by its place in the schema, however it was given."""
    if len(node.args) > position:
        return node.args[position]
    return node.kwargs.get(node.target._schema.arguments[position].name, default)


def arguments(node: Node) -> Found:
    """Every argument of a call of ATen by its name in the schema, defaults included."""
    return _named(node, node.args, node.kwargs)


def _named(node: Node, args: Iterable[Any], kwargs: Found) -> Found:
    """What is given to a call, by names; by its place where there is no schema."""
    named: dict[Any, Any] = _defaults(node.target)
    return {**named, **dict(zip(named or itertools.count(), args, strict=False)), **kwargs}


@functools.cache
def _defaults(target: Any) -> Found:
    schema = getattr(target, "_schema", None)
    return {argument.name: argument.default_value for argument in schema.arguments} if schema else {}


def as_dtype(x: Node, dtype: torch.dtype, like: Node) -> Node:
    """x, cast where it has another dtype."""
    return x if dtype_of(x) == dtype else emit(like, aten._to_copy.default, x, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class Pattern:
    """What a value may look like.

    matches: a value and the variables found so far -> the variables of every way in which the value matches
    targets: what its last operation may be
    """

    matches: Callable[[Any, Found], Iterator[Found]]
    targets: frozenset[Any] = frozenset()

    def __or__(self, other: "Pattern") -> "Pattern":
        def matches(value: Any, found: Found) -> Iterator[Found]:
            yield from self.matches(value, found)
            yield from other.matches(value, found)

        return Pattern(matches, self.targets | other.targets)


def is_anything(value: Any) -> bool:
    return True


def is_node(value: Any) -> bool:
    return isinstance(value, Node)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_constant(value: Any) -> bool:
    """Whether a value depends on parameters and literals alone; None does too."""
    return not isinstance(value, Node) or is_made_of(value, meta.constant, is_parameter)


def variable(name: str, of: Callable[[Any], bool] = is_node) -> Pattern:
    """Any value for which `of` holds, a node unless told otherwise; without a name, another one in each place."""

    def matches(value: Any, found: Found) -> Iterator[Found]:
        if found[name] is value if name in found else of(value):
            yield {**found, name: value} if name else found

    return Pattern(matches)


ANY = variable("", is_anything)


def call(targets: Any, *args: Any, **kwargs: Any) -> Pattern:
    """A call of one of `targets` with these arguments."""
    targets = targets if isinstance(targets, tuple) else (targets,)

    def matches(value: Any, found: Found) -> Iterator[Found]:
        if not is_call(value, *targets):
            return
        wanted, given = _named(value, args, kwargs), arguments(value)
        if wanted.keys() != given.keys():
            return
        yield from _all([*wanted.values()], [*given.values()], found)
        if value.target in COMMUTE:
            one, other, *rest = given.values()
            yield from _all([*wanted.values()], [other, one, *rest], found)

    return Pattern(matches, frozenset(targets))


def _all(patterns: list[Any], values: list[Any], found: Found) -> Iterator[Found]:
    if not patterns:
        yield found
        return
    for one in _matches(patterns[0], values[0], found):
        yield from _all(patterns[1:], values[1:], one)


def _matches(pattern: Any, value: Any, found: Found) -> Iterator[Found]:
    if isinstance(pattern, Pattern):
        yield from pattern.matches(value, found)
    elif math.isclose(value, pattern, rel_tol=1e-5) if is_number(pattern) and is_number(value) else value == pattern:
        yield found


def scaled(x: Any, factor: float) -> Pattern:
    """x times a number, or over its reciprocal."""
    return call(MUL, x, factor) | call(DIV, x, 1 / factor)


def once(pattern: Pattern) -> Pattern:
    """What one node alone reads."""

    def matches(value: Any, found: Found) -> Iterator[Found]:
        return pattern.matches(value, found) if isinstance(value, Node) and len(value.users) == 1 else iter(())

    return Pattern(matches, pattern.targets)


def cast(pattern: Pattern) -> Pattern:
    """A value, or a cast of it from float to float."""

    def matches(value: Any, found: Found) -> Iterator[Found]:
        if is_call(value, aten._to_copy.default) and {dtype_of(value), dtype_of(value.args[0])} <= FLOATS:
            yield from pattern.matches(value.args[0], found)
        yield from pattern.matches(value, found)

    return Pattern(matches, pattern.targets | {aten._to_copy.default})


class Rules:
    """Rules by the operation of the node that each replaces; the first that gives a node another one is applied.

    last_first: ask about the last node first, for patterns with steps that may be absent.
    """

    def __init__(self, last_first: bool = False) -> None:
        self.last_first = last_first
        self.by_target: dict[Any, list[Rule]] = collections.defaultdict(list)

    def on(self, *targets: Any) -> Callable[[Rule], Rule]:
        """Register a function of a node that gives what replaces it, or None; of any call, where no target is named."""

        def register(rule: Rule) -> Rule:
            for target in targets or (None,):
                self.by_target[target].append(rule)
            return rule

        return register

    def add(self, name: str, pattern: Pattern, build: Callable[..., Node | None]) -> None:
        """Replace what matches by build(node, **variables); where that gives None, the next match counts."""

        def rule(node: Node) -> Node | None:
            new = (build(node, **found) for found in pattern.matches(node, {}))
            return next((node for node in new if node is not None), None)

        rule.__name__ = name
        self.on(*pattern.targets)(rule)

    def apply(self, graph: Graph, leave: Callable[[Graph], Collection[Node]] = lambda graph: ()) -> int:
        """Apply the rules until nothing changes; returns how many nodes they replaced. leave: what no rule replaces."""
        counts: collections.Counter[Any] = collections.Counter()
        seconds: dict[Any, float] = collections.defaultdict(float)
        for _ in range(MAX_SWEEPS):
            before = counts.total()
            left, nodes = leave(graph), list(graph.nodes)
            for node in reversed(nodes) if self.last_first else nodes:
                if self.last_first and not node.users and node.op == "call_function" and not mutates(node):
                    graph.erase_node(node)  # what it alone reads is matched no more
                elif node.op == "call_function" and node not in left:
                    self._rewrite(node, counts, seconds)
            dead_code(graph)
            if counts.total() == before:
                break
        else:
            log.warning("no fixed point in %d sweeps of %s", MAX_SWEEPS, ", ".join(rule.__name__ for rule in counts))
        for rule, count in counts.items():
            log.debug("%s: %d places in %.3f s", rule.__name__, count, seconds[rule])
        return counts.total()

    def _rewrite(self, node: Node, counts: collections.Counter[Any], seconds: dict[Any, float]) -> None:
        for rule in (*self.by_target.get(node.target, ()), *self.by_target.get(None, ())):
            if not node.users:
                return
            started = time.perf_counter()
            with node.graph.inserting_before(node):
                new = rule(node)
            if new is not None and new is not node:
                replace(node, new)
                counts[rule] += 1
            seconds[rule] += time.perf_counter() - started
            if new is not None:
                return
