"""Linears by their columns: the heads that these make, weights cut, ordered and padded by numbers of columns.

A linear whose columns are only read in parts is divided into one linear for each part:

Before   gate, up = linear(x, w).chunk(2, -1);   y = silu(gate) * up
After    gate = linear(x, w[:, :n], "silu");   up = linear(x, w[:, n:]);   y = gate * up

A slice is a kernel, and an activation of a part is another: linears of their own come without slices and take their
activations along, those of all columns as well. Heads have been split off before, in one call for all of them.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, needed_for, only_user, replace, shape_of
from tt_dynamo.passes.movement import head_columns, is_move, moves_behind, source_of
from tt_dynamo.passes.rewrite import emit, is_constant
from tt_dynamo.passes.rows import literal

CUTS = (aten.split.Tensor, aten.split_with_sizes.default, aten.slice.Tensor)
ACTIVATIONS = tuple(getattr(aten, name).default for name in ("gelu", "relu", "silu", "sigmoid", "tanh"))


class Projection(NamedTuple):
    """One of query, key, value: `columns` [heads, head_dim] of what `linear` gives, moved to `heads`."""

    linear: Node
    columns: torch.Tensor
    heads: Node


def has_own_weights(node: Node) -> bool:
    """Whether a node is a linear of constants without activation, whose columns may be computed one by one."""
    return is_call(node, operators.linear) and len(node.args) <= 3 and all(map(is_constant, node.args[1:]))


def projections(linear: Node, context: Context) -> list[Projection]:
    """The heads that moves of a linear of constants make, where these are all that reads it; else none."""
    ends: dict[Node, list[Projection] | None] = {}  # of a value and its moves

    def of(user: Node) -> list[Projection] | None:
        if ends.get(user) is not None:
            return ends[user]
        columns = head_columns(user, context) if is_move(user) and source_of(user) is linear else None
        return None if columns is None else [Projection(linear, columns, user)]

    for node in reversed(moves_behind(linear)) if has_own_weights(linear) else ():
        parts = [of(user) for user in node.users]
        ends[node] = None if None in parts else [projection for part in parts if part for projection in part]
    return ends.get(linear) or []


def is_consecutive(numbers: torch.Tensor) -> bool:
    return torch.equal(numbers, int(numbers[0]) + torch.arange(len(numbers), dtype=numbers.dtype))


def take(weight: Node, numbers: torch.Tensor, like: Node, dim: int = -1) -> Node:
    """Columns of a weight or bias, or what stands along `dim`, by their numbers; zeros where a number is -1."""
    size, start = shape_of(weight)[dim], int(numbers[0])
    if start >= 0 and is_consecutive(numbers):
        whole = len(numbers) == size
        return weight if whole else emit(like, aten.slice.Tensor, weight, dim, start, start + len(numbers))
    if bool((numbers < 0).any()):
        pads = [0, 0] * (len(shape_of(weight)) - 1 - dim % len(shape_of(weight))) + [0, 1]
        weight = emit(like, aten.constant_pad_nd.default, weight, pads)
    return emit(like, aten.index_select.default, weight, dim, literal(weight, numbers.long() % shape_of(weight)[dim]))


def take_columns(linear: Node, numbers: torch.Tensor) -> list[Node | None]:
    """Weight and bias (None where there is none) of a linear, less all columns but these, in this order."""
    weights = (*linear.args[1:3], None)[:2]
    return [weight and take(weight, numbers, linear) for weight in weights]


def to_heads(x: Node, shape: tuple[int, ...], like: Node) -> Node:
    """x [batch, seq, heads * head_dim] in the shape [batch, heads, seq, head_dim]."""
    batch, heads, seq, head_dim = shape
    apart = emit(like, aten.reshape.default, x, [batch, seq, heads, head_dim])
    return emit(like, aten.permute.default, apart, [0, 2, 1, 3])


def hoist_operands(linears: Iterable[Node], first: Node) -> None:
    """Have the weights and biases of some linears be made before `first`, where they are joined."""
    operands = [x for linear in linears for x in linear.args[1:] if isinstance(x, Node)]
    for made in (made for x in operands if first < x for made in needed_for(x, lambda node: node < first)):
        first.prepend(made)


def split_linears(graph: Graph, context: Context) -> int:
    """Divide every linear that only slices of its columns read; returns how many."""
    divided = 0
    for node in [node for node in graph.nodes if is_call(node, *ACTIVATIONS)]:
        _cut_before(node)
    for linear in graph.find_nodes(op="call_function", target=operators.linear):
        parts = _parts(linear) if has_own_weights(linear) and linear.meta["val"].numel() else []
        for part, columns in parts:
            with graph.inserting_before(part):
                replace(part, emit(part, operators.linear, linear.args[0], *take_columns(linear, columns)))
        divided += bool(parts)
    dead_code(graph)
    return divided


def _cut_before(activation: Node) -> None:
    """Cut the columns of a linear before their activation, where the linear is divided then."""
    linear = activation.args[0]
    if only_user(linear) is None or not has_own_weights(linear) or not _parts(linear, activation):
        return
    for cut in list(activation.users):
        with linear.graph.inserting_before(cut):
            new = emit(cut, cut.target, linear, *cut.args[1:], **cut.kwargs)
        for part in [cut] if cut.target is aten.slice.Tensor else list(cut.users):
            with linear.graph.inserting_before(part):
                value = new if part is cut else emit(part, part.target, new, part.args[1])
                replace(part, emit(activation, activation.target, value, *activation.args[1:], **activation.kwargs))
    dead_code(linear.graph)


def _parts(linear: Node, cut_value: Node | None = None) -> list[tuple[Node, torch.Tensor]]:
    """What reads the linear, and which columns: nothing where a column is read twice or something else reads them.

    cut_value: what is made of each element and read in its place.
    """
    shape = shape_of(linear)
    numbers = torch.arange(shape[-1]).expand(shape)
    parts: list[tuple[Node, torch.Tensor]] = []
    for user in (cut_value or linear).users:
        if not is_call(user, *CUTS):
            return []
        cut = user.target(numbers, *user.args[1:], **user.kwargs)
        parts += [(user, cut)] if isinstance(cut, torch.Tensor) else [(n, cut[n.args[1]]) for n in user.users]
    if len(parts) < 2 or any(shape_of(part)[:-1] != shape[:-1] for part, _ in parts):
        return []
    parts = [(part, cut.reshape(-1, cut.shape[-1])[0]) for part, cut in parts]
    read = torch.cat([columns for _, columns in parts])
    apart = len(read.unique()) == len(read) and all(is_consecutive(columns) for _, columns in parts)
    return parts if apart else []
