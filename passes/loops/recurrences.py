"""Loops over tokens that carry a state, as one recurrence for all tokens.

Before   h_0 = a[:, 0] * h + b[:, 0];   h_1 = a[:, 1] * h_0 + b[:, 1];   …;   y = stack([f(h_0), f(h_1), …], 1)
After    h = linear_recurrence(permute(a), permute(b), h);   y = permute(f(h))

Before   m_0 = maximum(m + w, k[:, 0]);   m_1 = maximum(m_0 + w, k[:, 1]);   …      w the same for all tokens
After    the largest of m + (t + 1) w and of all k[:, s] + (t - s) w

The outputs may be stacked, concatenated, or written into a tensor one after the other; of what is carried, the last
may be read as well. A loop whose body is not of such parts stays as it is. What the passes leave of one is dead.

Cost: every node is looked at a few times, so that the pass is linear in the length of the loop.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, replace, shape_of
from tt_dynamo.passes.loops.stacked import is_same, parts_in_order, source, stacked_call, to_dimension
from tt_dynamo.passes.rewrite import ADD, MUL, argument, as_dtype, emit

SHORTEST = 8  # tokens of a loop
DEEPEST = 64  # operations of one token that follow one another
ROWS = 32  # of a tile
JOINS = (aten.stack.default, aten.cat.default)
WRITES = (aten.select_scatter.default, aten.slice_scatter.default)


class Step(NamedTuple):
    """One token of a recurrence: "sum" of factor * state and term, or "maximum" of state + factor and term.

    A factor or term is a number where there is none. start: that the state is given, and the others say nothing.
    """

    kind: str
    state: Any
    factor: Any
    term: Any


Series = tuple[Any, ...]


def fuse_recurrences(graph: Graph, context: Context) -> int:
    """Fuse every loop that matches; returns how many recurrences came of them."""
    count = 0
    for root in list(graph.nodes):
        outputs = outputs_of(root)
        if outputs is not None:
            count += _fuse_outputs(root, *outputs)
    dead_code(graph)
    tried: set[Node] = set()
    for chain in _chains(graph):
        if tried.isdisjoint(chain):
            count += _fuse_chain(chain)
        tried.update(chain)
    dead_code(graph)
    return count


def outputs_of(root: Node) -> tuple[Series, int, bool] | None:
    """What of each token comes together in `root`, the dimension where, and whether the parts have that dimension."""
    if is_call(root, *JOINS):
        parts, rank = [source(part) for part in root.args[0]], len(shape_of(root))
        if len(parts) >= SHORTEST and len({shape_of(part) for part in parts}) == 1:
            return tuple(parts), argument(root, 1, 0) % rank, root.target is aten.cat.default
    if is_call(root, *WRITES) and not any(is_call(user, *WRITES) and user.args[0] is root for user in root.users):
        return _written(root)
    return None


def _written(root: Node) -> tuple[Series, int, bool] | None:
    """The parts that fill a tensor, each written into it by itself."""
    kind, shape, node = root.target, shape_of(root), root
    dim = argument(root, 2, 0) % len(shape)
    parts: dict[int, Node] = {}
    while is_call(node, kind) and argument(node, 2, 0) % len(shape) == dim:
        parts.setdefault((argument(node, 3) or 0) % shape[dim], source(node.args[1]))
        node = node.args[0]
    kept = kind is aten.slice_scatter.default
    if len(parts) < SHORTEST or sorted(parts) != list(range(shape[dim])):
        return None
    if kept and any(shape_of(part)[dim] != 1 for part in parts.values()):
        return None
    return tuple(parts[at] for at in sorted(parts)), dim, kept


def _fuse_outputs(root: Node, parts: Series, dim: int, kept: bool) -> int:
    loop = _Loop(root)
    with root.graph.inserting_before(root):
        stacked = loop.stack(parts)
        if stacked is None or not loop.recurrences:
            return 0
        new = as_dtype(to_dimension(stacked, dim, kept, root), dtype_of(root), root)
        loop.read_states()
    replace(root, new)
    return len(loop.recurrences)


def _chains(graph: Graph) -> Iterator[Series]:
    """States that follow one from the other, as long as they go, the longest first."""
    depth: dict[Node, int] = {}  # in operations
    before: dict[Node, Node] = {}
    for node in graph.nodes:
        for step in _steps(node):
            length = depth.get(step.state, 0) + (1 if step.state in node.args else 2)  # a sum may hold its product
            if length >= depth.get(node, 0):
                depth[node], before[node] = length, step.state
    for last in sorted(depth.keys() - set(before.values()), key=lambda node: (-depth[node], node.name)):
        chain = [last] if depth[last] >= SHORTEST else []
        while chain and before[chain[-1]] in depth:
            chain.append(before[chain[-1]])
        if len(chain) >= SHORTEST:
            yield tuple(reversed(chain))


def _fuse_chain(chain: Series) -> int:
    """Fuse states of which some, as the last, are read for themselves."""
    last = chain[-1]
    loop = _Loop(last)
    with last.graph.inserting_before(last):
        if loop.stack(chain) is None or not loop.recurrences:
            return 0
        loop.read_states()
    return len(loop.recurrences)


def _steps(node: Node) -> Iterator[Step]:
    """The ways in which a value may follow from a state; of equal operations as many, in the same order."""
    if not is_call(node, *ADD, *MUL, aten.maximum.default) or not _is_plain(node):
        return
    one, other = node.args
    for x, y in ((one, other), (other, one)):
        if not isinstance(x, Node):
            continue
        if node.target in MUL:
            yield Step("sum", x, y, 0.0)
            continue
        kind, inner, without = ("sum", MUL, 1.0) if node.target in ADD else ("maximum", ADD, 0.0)
        yield Step(kind, x, without, y)
        if is_call(x, *inner) and _is_plain(x):
            yield from (Step(kind, p, q, y) for p, q in (x.args, x.args[::-1]) if isinstance(p, Node))


def _is_plain(node: Node) -> bool:
    """Whether a sum, product or maximum has its two operands and no factor besides."""
    return len(node.args) == 2 and not node.kwargs


def _recurring(series: Series) -> Iterator[list[Step]]:
    """The ways in which each of the series follows from the one before; the first may be what that starts from."""
    found = [list(_steps(node)) for node in series]
    for way in range(min(map(len, found[1:]))):
        steps = [each[way] for each in found[1:]]
        if len({step.kind for step in steps}) == 1 and all(map(_is_state, steps, series)):
            if way < len(found[0]) and found[0][way].kind == steps[0].kind:
                yield [found[0][way], *steps]
            yield [Step("start", None, None, None), *steps]


def _is_state(step: Step, node: Any) -> bool:
    return step.state is node


class _Loop:
    """The stacked values of what one loop computes, each made once, where the graph is inserted to, before `at`."""

    def __init__(self, at: Node) -> None:
        self.at = at
        self.known: dict[Series, Any] = {}
        self.recurrences: dict[Any, tuple[Series, Node]] = {}  # by their first state
        self.depth = 0

    def stack(self, series: Series) -> Any:
        if series not in self.known:
            self.known[series] = None  # where it is made of itself
            if self.depth < DEEPEST and all(isinstance(value, Node) for value in series):
                self.depth += 1
                self.known[series] = self._stacked(series)
                self.depth -= 1
        return self.known[series]

    def _stacked(self, series: Series) -> Node | None:
        parts = parts_in_order(series, self.at)
        if parts is not None:
            return parts
        for steps in _recurring(series):
            states = self._recurrence(series, steps)
            if states is not None:
                return states
        return stacked_call(series, self.at, self.stack)

    def _recurrence(self, series: Series, steps: list[Step]) -> Node | None:
        if steps[0].kind == "start":
            rest = self._recurrence(series[1:], steps[1:])
            if rest is None:
                return None
            first = _spread(self.at, series[0], shape_of(series[1]), dtype_of(series[1]))
            return emit(self.at, aten.cat.default, [emit(self.at, aten.unsqueeze.default, first, 0), rest])
        whole, states = self.recurrences.get(series[0], ((), None))
        if states is not None and whole[: len(series)] == series:
            return emit(self.at, aten.slice.Tensor, states, 0, 0, len(series))
        if {(shape_of(node), dtype_of(node)) for node in series} != {(shape_of(series[0]), dtype_of(series[0]))}:
            return None
        factor, term = (self._operand(tuple(step[place] for step in steps)) for place in (2, 3))
        if factor is None or term is None:
            return None
        make = _sums if steps[0].kind == "sum" else _maxima
        states = make(self.at, series, steps[0].state, factor, term)
        if states is not None:
            self.recurrences[series[0]] = series, states
        return states

    def _operand(self, values: Series) -> tuple[Any, bool] | None:
        """A factor or term, and whether it is stacked or the same for all tokens."""
        values = tuple(source(value) for value in values)
        if is_same(values):
            return values[0], False
        stacked = self.stack(values)
        return None if stacked is None else (stacked, True)

    def read_states(self) -> None:
        """Have what reads a state behind the loop read it from all states."""
        for series, states in self.recurrences.values():
            for index, state in enumerate(series):
                later = [user for user in state.users if self.at < user]
                if later or state is self.at:
                    part = emit(self.at, aten.select.int, states, 0, index)
                    for user in later:
                        user.replace_input_with(state, part)


def _spread(at: Node, value: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Node:
    """A value, or a number, expanded to `shape`."""
    if not isinstance(value, Node):
        return emit(at, aten.full.default, list(shape), value, dtype=dtype, device=at.meta["val"].device)
    value = as_dtype(value, dtype, at)
    return value if shape_of(value) == tuple(shape) else emit(at, aten.expand.default, value, list(shape))


def _spread_tokens(at: Node, value: tuple[Any, bool], shape: tuple[int, ...], dtype: torch.dtype) -> Node:
    """A factor or term, and whether it is stacked, expanded to `shape`, of which the first dimension is the tokens."""
    x, stacked = value
    if stacked:
        count, *own = shape_of(x)
        x = emit(at, aten.reshape.default, x, [count, *[1] * (len(shape) - 1 - len(own)), *own])
    return _spread(at, x, shape, dtype)


def _sums(at: Node, series: Series, start: Node, factor: tuple[Any, bool], term: tuple[Any, bool]) -> Node:
    """The states of factor * state + term."""
    shape, dtype = shape_of(series[0]), dtype_of(series[0])
    operands = (_spread_tokens(at, value, (len(series), *shape), dtype) for value in (factor, term))
    return emit(at, operators.linear_recurrence, *operands, _spread(at, start, shape, dtype))


def _maxima(at: Node, series: Series, start: Node, gap: tuple[Any, bool], term: tuple[Any, bool]) -> Node | None:
    """The states of maximum(state + gap, term), where the gap is the same for all tokens."""
    shape, dtype, width = shape_of(series[0]), dtype_of(series[0]), math.prod(shape_of(series[0]))
    if gap[1] or not dtype.is_floating_point:
        return None
    terms = _spread_tokens(at, term, (len(series), *shape), dtype)
    rows = [emit(at, aten.reshape.default, _spread(at, start, shape, dtype), [1, width])]
    rows.append(emit(at, aten.reshape.default, terms, [len(series), width]))
    gaps = emit(at, aten.reshape.default, _spread(at, gap[0], shape, dtype), [width])
    states = _running_maxima(at, emit(at, aten.cat.default, rows), gaps)
    states = emit(at, aten.slice.Tensor, states, 0, 1, len(series) + 1)
    return emit(at, aten.reshape.default, states, [len(series), *shape])


def _running_maxima(at: Node, x: Node, gap: Node) -> Node:
    """The largest of x[s] + (t - s) gap over all s <= t: x [tokens, width], gap [width].

    In chunks of a tile's rows: within each, of all pairs of tokens; then of the chunks' last ones, as before.
    """
    count, width = shape_of(x)
    chunks, rows = math.ceil(count / ROWS), min(count, ROWS)
    if chunks * rows > count:
        x = emit(at, aten.constant_pad_nd.default, x, [0, 0, 0, chunks * rows - count], -math.inf)
    tokens = emit(at, aten.arange.default, rows, dtype=dtype_of(x), device=x.meta["val"].device)
    later, earlier = (emit(at, aten.reshape.default, tokens, size) for size in ([rows, 1, 1], [1, rows, 1]))
    steps = emit(at, aten.sub.Tensor, later, earlier)
    seen = emit(at, aten.ge.Scalar, steps, 0)
    never = emit(at, aten.full.default, [], -math.inf, dtype=dtype_of(x), device=x.meta["val"].device)
    gaps = emit(at, aten.where.self, seen, emit(at, aten.mul.Tensor, steps, gap), never)
    pairs = emit(at, aten.add.Tensor, emit(at, aten.reshape.default, x, [chunks, 1, rows, width]), gaps)
    within = emit(at, aten.amax.default, pairs, [2])
    if chunks > 1:
        last = emit(at, aten.select.int, emit(at, aten.slice.Tensor, within, 0, 0, chunks - 1), 1, rows - 1)
        before = _running_maxima(at, last, emit(at, aten.mul.Tensor, gap, float(rows)))
        before = emit(at, aten.reshape.default, before, [chunks - 1, 1, width])
        ahead = emit(at, aten.add.Tensor, emit(at, aten.reshape.default, tokens, [rows, 1]), 1.0)
        ahead = emit(at, aten.mul.Tensor, ahead, gap)
        first, rest = (emit(at, aten.slice.Tensor, within, 0, *part) for part in ((0, 1), (1, chunks)))
        rest = emit(at, aten.maximum.default, rest, emit(at, aten.add.Tensor, before, ahead))
        within = emit(at, aten.cat.default, [first, rest])
    whole = emit(at, aten.reshape.default, within, [chunks * rows, width])
    return whole if chunks * rows == count else emit(at, aten.slice.Tensor, whole, 0, 0, count)
