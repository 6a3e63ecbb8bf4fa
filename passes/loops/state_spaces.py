"""State spaces with one decay a head, which models compute in chunks by dozens of moves (Mamba-2's), by few products.

Before   y = sum over s <= t of (c[t] · b[s]) exp(sum over s < r <= t of a dt[r]) dt[s] x[s], of each head; + d x
After    y = merge_heads((segment_decays(dt, a) * (c bᵀ)) @ (dt * x));   + d x

In chunks of at most 256 tokens; of more than one, what each leaves behind is read by the next ones. How a model spells
it doesn't matter: what stands between x, dt, b, c and y must give the same on made-up numbers.
Source: Dao & Gu 2024, https://arxiv.org/abs/2405.21060
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, is_literal, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.loops.arithmetic import computes, inputs_of, results_of, source_of_moves
from tt_dynamo.passes.rewrite import MUL, VIEWS, as_dtype, emit, is_constant

CHUNK = 256  # tokens
AT_ONCE = 32  # tokens
CASTS = (aten._to_copy.default, aten.clone.default)


@dataclasses.dataclass(frozen=True)
class StateSpace:
    """Operands of one: x [batch, tokens, heads, head_dim], dt [batch, tokens, heads], a and d [heads], b and c
    [batch, tokens, groups, size]; d may be absent. What lies in memory as one row a token is taken so: widths say it.
    """

    x: Node
    dt: Node
    a: Node
    b: Node
    c: Node
    d: Node | None
    groups: int

    def in_dtype(self, output: Node) -> "StateSpace":
        """The same with its operands cast to the dtype of the output."""
        names = ("x", "dt", "a", "b", "c", "d")
        found = {name: getattr(self, name) for name in names}
        cast = {name: x and as_dtype(x, dtype_of(output), output) for name, x in found.items()}
        return dataclasses.replace(self, **cast)

    @property
    def operands(self) -> list[Node]:
        return [x for x in (self.x, self.dt, self.a, self.b, self.c, self.d) if x is not None]


def fuse_state_spaces(graph: Graph, context: Context) -> int:
    """Fuse every state space; returns how many."""
    count = 0
    for sums in graph.find_nodes(op="call_function", target=aten.cumsum.default):
        found = _find(sums, context) if sums.users and not is_literal(sums) else None
        if found is None:
            continue
        output, space = found
        with graph.inserting_before(output):
            y = _write(output, space.in_dtype(output))
            replace(output, emit(output, aten.reshape.default, y, list(shape_of(output))))
        dead_code(graph)
        count += 1
    return count


def _find(sums: Node, context: Context) -> tuple[Node, StateSpace] | None:
    """The last value that is the output of a state space with these sums of decays."""
    steps = _steps(sums)
    if steps is None:
        return None
    dt, a = steps
    batch, tokens, heads = shape_of(dt)
    for output in reversed(results_of(sums)):
        if math.prod(shape_of(output)) % (batch * tokens * heads) or shape_of(output)[:2] != (batch, tokens):
            continue
        read = inputs_of(output, [dt, a])
        if not 5 <= len(read) <= 6 or not {dt, a} <= {*read}:
            continue
        for space in _spaces(read, dt, a, math.prod(shape_of(output))):
            if computes(output, space.operands, _Way(space.groups, shape_of(output)), context):
                return output, space
    return None


def _steps(sums: Node) -> tuple[Node, Node] | None:
    """dt [batch, tokens, heads] and a [heads], of whose products these are sums."""
    node: Any = sums.args[0]
    while not is_call(node, *MUL):
        if not isinstance(node, Node) or not node.args:
            return None
        node = node.args[0]
    if len(node.all_input_nodes) != 2:
        return None  # a square, or a multiple
    a, dt = sorted(node.all_input_nodes, key=lambda x: len(shape_of(x)))
    if len(shape_of(dt)) != 3 or not is_constant(a) or is_constant(dt):
        return None
    a = source_of_moves(a, shape_of(dt)[2:])
    return (dt, a) if a is not None else None


def _spaces(read: list[Node], dt: Node, a: Node, size: int) -> Iterator[StateSpace]:
    """The roles that what is read may have, by shapes."""
    batch, tokens, heads = shape_of(dt)
    rest = [node for node in read if node not in (dt, a)]
    d = [node for node in rest if is_constant(node) and shape_of(node) == (heads,)]
    rows = [node for node in rest if node not in d and shape_of(node)[:2] == (batch, tokens)]
    if len(rows) != 3 or len(d) + 3 != len(rest):
        return
    for x, b, c in itertools.permutations(rows):
        groups = _groups_of(b)
        if math.prod(shape_of(x)) == size and shape_of(b) == shape_of(c) and groups and heads % groups == 0:
            yield StateSpace(x, dt, a, b, c, d[0] if d else None, groups)


def _groups_of(x: Node) -> int:
    """Of [batch, tokens, groups, size], in memory as rows that are divided first of all; 0 where they are not."""
    while len(shape_of(x)) == 3 and (read := [user for user in x.users if is_call(user, *CASTS, *VIEWS)]):
        x = read[0]
    return shape_of(x)[2] if len(shape_of(x)) == 4 else 0


@dataclasses.dataclass(frozen=True)
class _Way:
    """What a state space computes: hashable, as part of a key. By a few tokens at once: one by one takes seconds."""

    groups: int
    shape: tuple[int, ...]

    def __call__(self, x: Any, dt: Any, a: Any, b: Any, c: Any, d: Any = None) -> torch.Tensor:
        batch, tokens, heads = dt.shape
        x = x.reshape(batch, tokens, heads, -1)
        b, c = (
            each.reshape(batch, tokens, self.groups, -1).repeat_interleave(heads // self.groups, 2) for each in (b, c)
        )
        parts = zip(*(each.transpose(1, 2).split(AT_ONCE, 2) for each in (x, dt, b, c)), strict=True)
        state, outputs = x.new_zeros(batch, heads, b.shape[-1], x.shape[-1]), []
        for terms, steps, keys, queries in parts:  # [batch, heads, tokens, …]
            terms = terms * steps[..., None]
            sums = (a[:, None] * steps).cumsum(-1)[..., None]
            within = (queries @ keys.mT) * (sums - sums.mT).exp().tril()
            outputs.append(within @ terms + (queries * sums.exp()) @ state)
            last = sums[:, :, -1:]
            state = last.exp() * state + (keys * (last - sums).exp()).mT @ terms
        y = torch.cat(outputs, 2).transpose(1, 2)
        return (y if d is None else y + d[:, None] * x).reshape(self.shape)


def _write(at: Node, space: StateSpace) -> Node:
    """y [batch, tokens, heads head_dim] of a state space, by chunks."""
    batch, tokens, heads = shape_of(space.dt)
    chunks = math.ceil(tokens / CHUNK)
    rows = tokens if chunks == 1 else math.ceil(tokens / chunks / TILE) * TILE
    width = math.prod(shape_of(space.x)) // (batch * tokens)

    def call(target: Any, *args: Any, **kwargs: Any) -> Node:
        return emit(at, target, *args, **kwargs)

    def reshape(node: Node, *shape: int) -> Node:
        return node if shape_of(node) == shape else call(aten.reshape.default, node, [*shape])

    def in_chunks(node: Node) -> Node:
        node = reshape(node, batch, tokens, math.prod(shape_of(node)[2:]))
        if chunks * rows > tokens:
            node = call(aten.constant_pad_nd.default, node, [0, 0, 0, chunks * rows - tokens])
        return reshape(node, batch * chunks, 1, rows, shape_of(node)[-1])

    def in_heads(node: Node, count: int) -> Node:
        return node if count == 1 else call(operators.split_lone_heads, node, count)

    def by_head(node: Node) -> Node:
        """[parts, groups, rows, width] for each head, where groups share it."""
        parts, groups, *own = shape_of(node)
        one, every = [parts, groups, 1, *own], [parts, groups, heads // groups, *own]
        return reshape(call(aten.expand.default, reshape(node, *one), every), parts, heads, *own)

    parts, groups = batch * chunks, space.groups
    x, dt, b, c = map(in_chunks, (space.x, space.dt, space.b, space.c))
    steps = reshape(dt, parts, rows, heads)
    seen = call(aten.full.default, [rows, rows], torch.finfo(torch.bfloat16).min, device=at.meta["val"].device)
    within = call(operators.segment_decays, steps, space.a, call(aten.triu.default, seen, 1))
    terms = call(aten.mul.Tensor, in_heads(x, heads), call(aten.permute.default, dt, [0, 3, 2, 1]))
    b, c = in_heads(b, groups), in_heads(c, groups)
    scores = call(aten.matmul.default, c, call(aten.permute.default, b, [0, 1, 3, 2]))
    shared = reshape(within, parts * groups, heads // groups, rows, rows)
    weights = call(aten.mul.Tensor, shared, reshape(scores, parts * groups, 1, rows, rows))
    y = call(aten.matmul.default, reshape(weights, parts, heads, rows, rows), terms)
    if chunks > 1:
        to_end = reshape(call(aten.select.int, within, 2, rows - 1), parts, heads, rows, 1)
        first = call(aten.mul.Tensor, call(aten.slice.Tensor, steps, 1, 0, 1), space.a)
        first = call(aten.exp.default, first)
        first = call(aten.permute.default, reshape(first, parts, 1, 1, heads), [0, 3, 1, 2])
        from_start = call(aten.mul.Tensor, call(aten.slice.Tensor, within, 3, 0, 1), first)
        left = call(aten.permute.default, by_head(b), [0, 1, 3, 2])
        left = call(aten.matmul.default, left, call(aten.mul.Tensor, terms, to_end))
        before = _states(at, left, call(aten.select.int, from_start, 2, rows - 1), batch)
        y = call(aten.add.Tensor, y, call(aten.mul.Tensor, call(aten.matmul.default, by_head(c), before), from_start))
    y = reshape(call(operators.merge_heads, y), batch, chunks * rows, width)
    if chunks * rows > tokens:
        y = call(aten.slice.Tensor, y, 1, 0, tokens)
    if space.d is None:
        return y
    each = call(aten.expand.default, reshape(space.d, heads, 1), [heads, width // heads])
    x = reshape(space.x, batch, tokens, width)
    return call(aten.add.Tensor, y, call(aten.mul.Tensor, x, reshape(each, width)))


def _states(at: Node, left: Node, decay: Node, batch: int) -> Node:
    """The state before each chunk, of what each leaves behind [batch chunks, heads, size, head_dim] and decays by."""
    parts, *own = shape_of(left)
    chunks, heads = parts // batch, own[0]
    left = emit(at, aten.reshape.default, left, [batch, chunks, *own])
    decay = emit(at, aten.reshape.default, decay, [batch, chunks, heads, 1, 1])
    state = emit(at, aten.mul.Scalar, emit(at, aten.slice.Tensor, left, 1, 0, 1), 0.0)
    states = [state]
    for chunk in range(chunks - 1):
        added, kept = (emit(at, aten.slice.Tensor, each, 1, chunk, chunk + 1) for each in (left, decay))
        state = emit(at, aten.add.Tensor, added, emit(at, aten.mul.Tensor, state, kept))
        states.append(state)
    return emit(at, aten.reshape.default, emit(at, aten.cat.default, states, 1), [parts, *own])
