"""Streams that are stacked along the first dimension: mixed for each token, and changed in all parts but one.

Before   y = permute(matmul(permute(x, [1, 2, 3, 0]), m), [3, 0, 1, 2])      m = reshape(c, [batch, seq, n, k])
After    y = sum(x[:, None] * coefficients, 0)                               coefficients [n, k, batch, seq, 1] of c

Before   y = sum(x[:, None] * linear(r, w), 0) + x          After    y = sum(x[:, None] * linear(r, w, identity), 0)

Before   y = matmul(permute(x, [1, 2, 3, 0]), m) …, of one token
After    y = reshape(transposed_matmul(reshape(c, [1, n, k]), reshape(x, [1, n, width]), True, False), [k, 1, 1, width])

Before   y = cat([x[:1], x[1:] + update])        After    y = addcmul(x, update, mask)       mask [n, 1, 1, 1]

Before   reshape(permute(c, [2, 0, 1]), [n, batch, seq, 1])
After    permute(reshape(c, [batch, 1, seq, n]), [3, 0, 2, 1])

x [n, batch, seq, width], c [batch, seq, n k]. A product whose inner dimension is the stack fills a fraction of every
tile, and three permutes stand around it. Only where n k is at most a tile: that many times a stream is written before
it is summed. The streams of one token are rows of one tile, so one small product mixes them: no linear, whose weights
may be coarse. Alternating updates keep
such stacks (Gemma 3n).
Source: Baykal et al. 2023, https://arxiv.org/abs/2301.13310
"""

import math
from typing import NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call, only_user, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.movement import cut_of, is_permute, start_of, transposing
from tt_dynamo.passes.rewrite import Rules, argument, emit, is_constant
from tt_dynamo.passes.rows import literal

RULES = Rules()


def fuse_stacks(graph: Graph, context: Context) -> int:
    """Fuse every such mix, sum and move; returns how many."""
    return RULES.apply(graph)


class _Mix(NamedTuple):
    """Streams x [n, ..., width], and a row [..., n k] of each token that mixes them to k."""

    x: Node
    row: Node
    n: int
    k: int
    by_result: bool

    @property
    def is_of_one_token(self) -> bool:
        return math.prod(shape_of(self.x)[1:-1]) == 1


@RULES.on(aten.permute.default)
def _mix(node: Node) -> Node | None:
    mix = _find_mix(node)
    reader = only_user(node)
    if mix is None or (reader is not None and is_call(reader, aten.add.Tensor) and _takes_streams(reader, node, mix)):
        return None
    return _mixed(node, mix, mix.row)


@RULES.on(aten.add.Tensor)
def _mix_and_add(node: Node) -> Node | None:
    for value in node.args[:2]:
        mix = _find_mix(value) if isinstance(value, Node) and is_call(value, aten.permute.default) else None
        if mix is not None and only_user(value) is node and _takes_streams(node, value, mix):
            ones = literal(node, torch.eye(mix.n, dtype=dtype_of(mix.row)).flatten())
            bias = argument(mix.row, 2)
            bias = ones if bias is None else emit(node, aten.add.Tensor, bias, ones)
            return _mixed(node, mix, emit(node, operators.linear, *mix.row.args[:2], bias))
    return None


def _takes_streams(total: Node, mixed: Node, mix: _Mix) -> bool:
    """Whether a sum adds to mixed streams what they were, and a linear with a bias may make their coefficients."""
    is_sum = {*total.args} == {mixed, mix.x} and not total.kwargs and dtype_of(total) == dtype_of(mix.row)
    is_plain = is_call(mix.row, operators.linear) and len(mix.row.args) <= 3 and only_user(mix.row) is not None
    return is_sum and mix.n == mix.k and is_plain and all(map(is_constant, mix.row.args[1:]))


def _find_mix(node: Node) -> _Mix | None:
    product, rank = node.args[0], len(shape_of(node))
    if rank < 3 or not is_permute(node, [rank - 1, *range(rank - 1)]) or not only_user(product):
        return None
    if not is_call(product, aten.matmul.default, operators.linear) or len(product.args) != 2:
        return None
    rows, matrix = product.args
    if not is_permute(rows, [*range(1, rank), 0]):
        return None
    (*lead, _, n), k = shape_of(rows), shape_of(product)[-1]
    # What mixes a token's streams lies in one row: those of one result side by side, or those of one stream.
    pairs = matrix
    if is_call(matrix, aten.reshape.default) and is_call(matrix.args[0], aten.permute.default):
        pairs = matrix.args[0]  # of one token, without dimensions of one
    dims = len(shape_of(pairs))
    by_result = is_permute(pairs, transposing(dims))
    pairs = pairs.args[0] if by_result else pairs
    if not is_call(pairs, aten.reshape.default) or shape_of(pairs)[-2:] != ((k, n) if by_result else (n, k)):
        return None
    row = pairs.args[0]
    if n * k > TILE or shape_of(row) != (*lead, n * k):
        return None
    return _Mix(rows.args[0], row, n, k, by_result)


def _mixed(node: Node, mix: _Mix, row: Node) -> Node:
    """The streams that rows of coefficients make of streams."""
    x, n, k = mix.x, mix.n, mix.k
    *lead, width = shape_of(x)[1:]
    if mix.is_of_one_token:
        ones = [1] * (len(lead) - 1)
        matrix = emit(node, aten.reshape.default, row, [*ones, *([k, n] if mix.by_result else [n, k])])
        rows = emit(node, aten.reshape.default, x, [*ones, n, width])
        y = emit(node, operators.transposed_matmul, matrix, rows, not mix.by_result, False)
        return emit(node, aten.reshape.default, y, [k, *lead, width])
    shape = (1, n) if mix.by_result else (n, 1)
    streams = emit(node, aten.reshape.default, x, [*shape, *lead, width])
    shape = (k, n) if mix.by_result else (n, k)
    coefficients = emit(node, aten.reshape.default, _before(row, node), [*shape, *lead, 1])
    terms = emit(node, aten.mul.Tensor, streams, coefficients)
    return emit(node, aten.sum.dim_IntList, terms, [int(mix.by_result)])


def _before(x: Node, like: Node) -> Node:
    """x [..., rows, n] as columns before everything else: [n, ..., rows, 1], by one permute."""
    *lead, rows, n = shape_of(x)
    apart = emit(like, aten.reshape.default, x, [*lead, 1, rows, n])
    dims = len(lead)
    return emit(like, aten.permute.default, apart, [dims + 2, *range(dims), dims + 1, dims])


@RULES.on(aten.reshape.default)
def _columns(node: Node) -> Node | None:
    permute = node.args[0]
    if not is_call(permute, aten.permute.default) or shape_of(node) != (*shape_of(permute), 1):
        return None
    rank = len(shape_of(permute))
    return _before(permute.args[0], node) if rank > 1 and is_permute(permute, [rank - 1, *range(rank - 1)]) else None


class _Part(NamedTuple):
    """Rows `start` to `stop` of the first dimension of x, and what is added to them."""

    x: Node
    start: int
    stop: int
    update: Node | None = None


@RULES.on(aten.cat.default)
def _update(node: Node) -> Node | None:
    parts = [part for value in node.args[0] if argument(node, 1, 0) == 0 and (part := _part(value))]
    if len(parts) != len(node.args[0]):
        return None
    bounds = [(part.start, part.stop) for part in parts]
    updates = [part.update for part in parts if part.update]
    x = parts[0].x
    is_whole = [0, *(stop for _, stop in bounds)] == [*(start for start, _ in bounds), shape_of(x)[0]]
    if not is_whole or len({part.x for part in parts}) > 1 or len(set(updates)) != 1 or shape_of(x) != shape_of(node):
        return None
    mask = torch.cat([torch.full((part.stop - part.start,), float(part.update is not None)) for part in parts])
    ones = [1] * (len(shape_of(x)) - 1)
    return emit(node, aten.addcmul.default, x, updates[0], literal(node, mask.to(dtype_of(x)).reshape(-1, *ones)))


def _part(value: Node) -> _Part | None:
    """A part of a stack by a slice or a select, and what is added to each of its rows alike."""
    if is_call(value, aten.add.Tensor) and only_user(value) and not value.kwargs:
        for one, update in (value.args[:2], value.args[1::-1]):
            part = _part(one) if isinstance(one, Node) and isinstance(update, Node) else None
            if part and not part.update and dtype_of(update) == dtype_of(value) and _is_one_row(update, value):
                return part._replace(update=update)
        return None
    cut = value.args[0] if _adds_first(value) else value
    if cut is not value and is_call(cut, aten.select.int) and cut.args[1] == 0:
        return _Part(cut.args[0], start_of(cut), start_of(cut) + 1)
    found = cut_of(value, -len(shape_of(value))) if is_call(value, aten.slice.Tensor) else None
    if found is not None:
        x, start = found
        return _Part(x, start, start + shape_of(value)[0])
    return None


def _adds_first(node: Node) -> bool:
    return is_call(node, aten.reshape.default) and shape_of(node) == (1, *shape_of(node.args[0]))


def _is_one_row(update: Node, rows: Node) -> bool:
    shape, rank = shape_of(update), len(shape_of(rows))
    return len(shape) < rank or (len(shape) == rank and shape[0] == 1)
