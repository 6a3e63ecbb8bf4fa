"""ATen idioms back to the operation they mean, in one spelling each.

Before   addmm(bias, view(x), w); view   linear(x, w, bias)            matmul(x, w)   transpose, squeeze
After    linear(x, w, bias)              linear(x, permute(w), bias)   linear(x, w)   permute, reshape

What is computed twice is computed once. Moves of data that do nothing vanish, runs of them join, and linear commutes
with moves of the leading dimensions: upwards where that completes the merging of heads, downwards everywhere else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import (
    Context,
    aten,
    constant_nodes,
    dead_code,
    dtype_of,
    insert,
    is_call,
    is_random,
    literal_nodes,
    literal_value,
    mutates,
    only_user,
    reads_too_late,
    replace,
    shape_of,
)
from tt_dynamo.passes.movement import is_move, moves_leading
from tt_dynamo.passes.normalize.whole import WHOLE

# Each sweep is linear in the graph; chains of rewrites settle in a few.
MAX_SWEEPS = 8

COPIES = (aten.clone.default, aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default)
RESHAPES = (
    aten.view.default,
    aten._unsafe_view.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
)


def canonicalize(graph: Graph, context: Context) -> int:
    """Apply the rules until nothing changes; returns how many rewrites."""
    changed = 0
    for _ in range(MAX_SWEEPS):
        count = _share_equal(graph)
        sweep = _Sweep(graph)
        count += sum(sweep.rewrite(node) for node in list(graph.nodes)) + sweep.elsewhere
        dead_code(graph)
        changed += count
        if not count:
            break
    return changed


def _share_equal(graph: Graph) -> int:
    """Compute what several nodes compute alike once (masks are rebuilt in every layer); returns how many went."""
    seen: dict[object, Node] = {}
    shared = 0
    for node in list(graph.nodes):
        if node.op != "call_function" or is_random(node) or mutates(node):
            continue
        key = (node.target, repr(node.args), repr(node.kwargs))  # names of nodes are unique within a graph
        first = seen.setdefault(key, node)
        if first is not node:
            first.meta["nn_module_stack"] = _common_modules(first, node)
            replace(node, first)
            shared += 1
    return shared


def _common_modules(one: Node, other: Node) -> dict:
    """The modules that hold both: where work that they share belongs."""
    stacks = (node.meta.get("nn_module_stack", {}).items() for node in (one, other))
    return dict(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*stacks, strict=False)))


class _Sweep:
    """One pass over the graph; what is constant or literal is found once, for all rules."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants = constant_nodes(graph)
        self.literals = literal_nodes(graph)
        self.elsewhere = 0  # rewrites that replaced the user of the node that a rule was asked about

    def rewrite(self, node: Node) -> bool:
        rule = RULES.get(node.target) if node.op == "call_function" else None
        if rule is None or not node.users:
            return False
        with self.graph.inserting_before(node):
            new = rule(self, node)
        if new is None or new is node:
            return False
        for kind in (self.constants, self.literals):
            if node in kind:
                kind.add(new)
        replace(node, new)
        return True

    def emit(self, like: Node, target, *args, **kwargs) -> Node:
        return insert(self.graph, target, args, kwargs, like=like)


Rule = Callable[[_Sweep, Node], "Node | None"]


def _without_sweep(rule: Callable[[Node], Node | None]) -> Rule:
    return lambda sweep, node: rule(node)


RULES: dict[object, Rule] = {target: _without_sweep(rule) for target, rule in WHOLE.items()}


def _rule(*targets: object) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return register


def _same(node: Node) -> Node | None:
    """The node's first argument, where no output comes to share memory with an input, and nothing reads too late."""
    source = node.args[0]
    is_given_away = source.op == "placeholder" and any(user.op == "output" for user in node.users)
    return None if is_given_away or reads_too_late(node, source) else source


@_rule(*COPIES)
def _drop_copy(sweep: _Sweep, node: Node) -> Node | None:
    # An alias of an input is that input in eager torch too.
    return node.args[0] if node.target in (aten.alias.default, aten.detach.default) else _same(node)


@_rule(aten._to_copy.default)
def _drop_cast(sweep: _Sweep, node: Node) -> Node | None:
    source = node.args[0]
    unchanged = dtype_of(node) == dtype_of(source) and node.meta["val"].device == source.meta["val"].device
    return _same(node) if unchanged else None


@_rule(*RESHAPES, aten.reshape.default)
def _reshape(sweep: _Sweep, node: Node) -> Node | None:
    source, shape = node.args[0], list(shape_of(node))
    if shape == list(shape_of(source)):
        return _same(node)
    if is_call(source, aten.reshape.default):
        return sweep.emit(node, aten.reshape.default, source.args[0], shape)
    if node.target is not aten.reshape.default or list(node.args[1]) != shape:
        return sweep.emit(node, aten.reshape.default, source, shape)
    return None


@_rule(aten.permute.default, aten.transpose.int, aten.t.default)
def _permute(sweep: _Sweep, node: Node) -> Node | None:
    source = node.args[0]
    rank = len(shape_of(source))
    order = _order(node, rank)
    if order == list(range(rank)):
        return _same(node)
    if is_call(source, aten.permute.default):
        return sweep.emit(node, aten.permute.default, source.args[0], [source.args[1][i] for i in order])
    kept = [i for i in order if shape_of(source)[i] != 1]
    if kept == sorted(kept):
        return sweep.emit(node, aten.reshape.default, source, list(shape_of(node)))
    if node.target is not aten.permute.default or list(node.args[1]) != order:
        return sweep.emit(node, aten.permute.default, source, order)
    return None


def _order(node: Node, rank: int) -> list[int]:
    if node.target is aten.permute.default:
        return [dim % rank for dim in node.args[1]]
    order = list(range(rank))
    if rank >= 2:
        a, b = (0, 1) if node.target is aten.t.default else (node.args[1] % rank, node.args[2] % rank)
        order[a], order[b] = order[b], order[a]
    return order


@_rule(aten.expand.default, aten.slice.Tensor)
def _drop_same_shape(sweep: _Sweep, node: Node) -> Node | None:
    return _same(node) if shape_of(node) == shape_of(node.args[0]) else None


@_rule(aten.mm.default, aten.addmm.default)
def _linear(sweep: _Sweep, node: Node) -> Node | None:
    if node.target is aten.mm.default:
        return sweep.emit(node, operators.linear, *node.args)
    bias, x, weight = node.args
    if node.kwargs or shape_of(bias) != (shape_of(weight)[1],) or not dtype_of(node).is_floating_point:
        return None
    return sweep.emit(node, operators.linear, x, weight, bias)


@_rule(operators.linear)
def _commute_linear(sweep: _Sweep, node: Node) -> Node | None:
    x, *rest = node.args
    if not is_move(x):
        return None
    head = x
    while is_move(head) and moves_leading(head):
        head = head.args[0]
    if is_move(head):
        return _pull_up(sweep, node)
    product = sweep.emit(node, operators.linear, x.args[0], *rest, **node.kwargs)
    where = list(shape_of(node)) if x.target is aten.reshape.default else x.args[1]
    return sweep.emit(node, x.target, product, where)


def _pull_up(sweep: _Sweep, node: Node) -> Node | None:
    """linear(x) then a move of its rows → the move first: x is on its way out of heads, and the move completes it."""
    user = only_user(node)
    if user is None or not moves_leading(user):
        return None
    x, *rest = node.args
    where = [*shape_of(user)[:-1], shape_of(x)[-1]] if user.target is aten.reshape.default else user.args[1]
    moved = sweep.emit(node, user.target, x, where)
    product = sweep.emit(node, operators.linear, moved, *rest, **node.kwargs)
    replace(user, product)
    sweep.elsewhere += 1
    return None


@_rule(aten.index.Tensor)
def _index(sweep: _Sweep, node: Node) -> Node | None:
    """x[arange(n)[:, None, None], arange(m)] reads every element once, in order: a reshape."""
    x, indices = node.args
    if len(indices) != len(shape_of(x)) or any(i is None for i in indices):
        return None
    found = [literal_value(index, sweep.literals) for index in indices]
    values = [value for value in found if value is not None and value.dtype == torch.int64]
    if len(values) != len(indices):
        return None
    numbers = torch.zeros(shape_of(node), dtype=torch.int64)
    for value, size in zip(values, shape_of(x), strict=True):
        numbers = numbers * size + torch.where(value < 0, value + size, value)
    if not torch.equal(numbers.reshape(-1), torch.arange(torch.Size(shape_of(x)).numel())):
        return None
    return sweep.emit(node, aten.reshape.default, x, list(shape_of(node)))


@_rule(aten.bitwise_and.Tensor, aten.logical_and.default)
def _and_true(sweep: _Sweep, node: Node) -> Node | None:
    if dtype_of(node) != torch.bool:
        return None
    for true, other in (node.args, reversed(node.args)):
        value = literal_value(true, sweep.literals) if isinstance(true, Node) else None
        if value is not None and isinstance(other, Node) and dtype_of(other) == torch.bool and bool(value.all()):
            return sweep.emit(node, aten.expand.default, other, list(shape_of(node)))
    return None


@_rule(aten.where.self)
def _where_of_scalars(sweep: _Sweep, node: Node) -> Node | None:
    """Choosing between two numbers: before the condition is broadcast, and with the numbers as scalars."""
    condition, *choices = node.args
    values = [literal_value(choice, sweep.literals) if not shape_of(choice) else None for choice in choices]
    if any(value is None for value in values) or dtype_of(node) != torch.get_default_dtype():
        return None
    source = condition.args[0] if is_call(condition, aten.expand.default) else condition
    chosen = sweep.emit(node, aten.where.Scalar, source, *(value.item() for value in values if value is not None))
    if shape_of(chosen) == shape_of(node):
        return chosen
    return sweep.emit(node, aten.expand.default, chosen, list(shape_of(node)))


@_rule(aten.add.Tensor)
def _add(sweep: _Sweep, node: Node) -> Node | None:
    """Adding zero is nothing; a bias joins its linear; of x + c + d, the constants are added first."""
    x, c = node.args
    if node.kwargs:
        return None
    if c == 0 and isinstance(c, int) and not isinstance(c, bool) and dtype_of(x) == dtype_of(node):
        return _same(node)
    if not isinstance(c, Node) or not dtype_of(node).is_floating_point:
        return None
    if x in sweep.constants:
        x, c = c, x
    if c in sweep.constants and _join_bias(x, c):
        return x
    if c not in sweep.constants or not is_call(x, aten.add.Tensor) or x.kwargs or only_user(x) is not node:
        return None
    inner, d = x.args
    if inner in sweep.constants:
        inner, d = d, inner
    if d not in sweep.constants or not isinstance(inner, Node) or inner in sweep.constants:
        return None
    total = sweep.emit(node, aten.add.Tensor, d, c)
    sweep.constants.add(total)
    new = sweep.emit(node, aten.add.Tensor, inner, total)
    return new if shape_of(new) == shape_of(node) and dtype_of(new) == dtype_of(node) else None


def _join_bias(x: Node, bias: Node) -> bool:
    """Give `bias` to the linear without one that x moves the rows of; False where x is something else."""
    linear = x
    while is_move(linear) and moves_leading(linear) and len(linear.users) == 1:
        linear = linear.args[0]
    if not is_call(linear, operators.linear) or len(linear.args) != 2 or len(linear.users) != 1 or linear < bias:
        return False
    if shape_of(bias) != shape_of(linear)[-1:] or dtype_of(bias) != dtype_of(linear):
        return False
    linear.args = (*linear.args, bias)
    return True


@_rule(aten.bmm.default)
def _drop_batch_reshape(sweep: _Sweep, node: Node) -> Node | None:
    """reshape(bmm(reshape(a), reshape(b))) with a, b [x, y, rows, columns] → matmul(a, b)."""
    user = only_user(node)
    sources = [_unexpanded(argument) for argument in node.args]
    if user is None or not is_call(user, aten.reshape.default) or any(source is None for source in sources):
        return None
    a, b = sources
    if shape_of(a)[:-2] != shape_of(b)[:-2] or shape_of(user) != (*shape_of(a)[:-1], shape_of(b)[-1]):
        return None
    replace(user, sweep.emit(node, aten.matmul.default, a, b))
    sweep.elsewhere += 1
    return None


def _unexpanded(node: Node) -> Node | None:
    """The tensor of rank 4 whose leading dimensions a reshape merged for bmm."""
    if not is_call(node, aten.reshape.default):
        return None
    source = node.args[0]
    same_rows = len(shape_of(source)) == 4 and shape_of(source)[-2:] == shape_of(node)[-2:]
    return source if same_rows else None
