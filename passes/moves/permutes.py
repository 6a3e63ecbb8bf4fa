"""Permutes where they cancel: before elementwise operations and joins, and behind the columns of a linear.

Before   permute(permute(x) * a + permute(y))            x, y = permute(linear(z, w)).split(n, 1)
After    x * permute(a) + y                              x, y = map(permute, linear(z, w).split(n, -1))

Before   permute(cat([permute(x), permute(y)], 1))       After   cat([x, y], -1)

Before   softmax(permute(x), 2)                          After    permute(softmax(x, 1))    where that meets another

Reshapes that add or drop dimensions of one stand in between as they like; permutes of constants are folded. What else
reads a value of the elementwise operations, reads it permuted back. Only where fewer permutes are left.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, is_random, mutates, only_user, replace, shape_of
from tt_dynamo.passes.fuse.linears import CUTS, has_own_weights
from tt_dynamo.passes.moves.joined_reshapes import cancel_reshapes, join_reshapes
from tt_dynamo.passes.rewrite import argument, emit, is_constant

Order = tuple[int, ...]

MAX_SWEEPS = 16
# What works along a dimension, its second argument, as well in another order.
ALONG = (aten.softmax.int, aten._softmax.default)
# What has a number a dimension as its second argument, in whatever order they are.
EACH = (aten.repeat.default, aten.expand.default)


def hoist_permutes(graph: Graph, context: Context) -> int:
    """Move permutes up where that leaves fewer of them; returns how often."""
    count = sum(map(_cut_before, graph.find_nodes(op="call_function", target=operators.linear)))
    for _ in range(MAX_SWEEPS):  # each time there is one permute less
        before = count
        for node in graph.find_nodes(op="call_function", target=aten.permute.default):
            if node.users and not is_constant(node) and _hoist(node):
                count += 1
        dead_code(graph)
        if count == before:
            break
    if count:
        join_reshapes(graph)
    return count + cancel_reshapes(graph)


def _cut_before(linear: Node) -> bool:
    """Cut columns of a linear before all of them are permuted; whoever cuts linears finds them."""
    permute = only_user(linear) if has_own_weights(linear) else None
    if permute is None or not is_call(permute, aten.permute.default) or not permute.users:
        return False
    last = len(shape_of(linear)) - 1
    order = [dim % (last + 1) for dim in permute.args[1]]
    if not all(is_call(cut, *CUTS) and order[_cut_dim(cut)] == last for cut in permute.users):
        return False
    for cut in list(permute.users):
        is_slice = cut.target is aten.slice.Tensor
        args = [linear, *cut.args[1:]]
        with linear.graph.inserting_before(cut):
            if is_slice:
                args[1] = last
                new = emit(cut, cut.target, *args)
            else:
                new = emit(cut, cut.target, linear, args[1], last)
        for part in [cut] if is_slice else list(cut.users):
            with linear.graph.inserting_before(part):
                value = new if is_slice else emit(part, part.target, new, part.args[1])
                replace(part, emit(part, aten.permute.default, value, order))
    dead_code(linear.graph)
    return True


def _cut_dim(cut: Node) -> int:
    return argument(cut, 1 if cut.target is aten.slice.Tensor else 2, 0) % len(shape_of(cut.args[0]))


class Operand(NamedTuple):
    """An operand as an elementwise operation or reshape reads it: with dimensions of one more or less, as `shape`."""

    value: Node
    shape: Order

    def order(self, order: Order) -> Order:
        """How the value itself is permuted, where with this shape it is in `order`; dimensions of one stay."""
        at = [dim for dim, size in enumerate(self.shape) if size != 1]
        own = [dim for dim, size in enumerate(shape_of(self.value)) if size != 1]
        result = [*range(len(shape_of(self.value)))]
        for place, dim in zip(own, (dim for dim in order if self.shape[dim] != 1), strict=True):
            result[place] = own[at.index(dim)]
        return tuple(result)


def _operands(node: Node) -> Iterator[Operand]:
    rank = len(shape_of(node))
    if is_call(node, aten.cat.default):
        yield from (Operand(value, shape_of(value)) for value in node.all_input_nodes)
        return
    if is_call(node, *EACH):
        yield Operand(node.args[0], shape_of(node.args[0]))
        return
    for value in [node.args[0]] if _is_of_ones(node) else node.all_input_nodes:
        shape = shape_of(node) if _is_of_ones(node) else (*[1] * (rank - len(shape_of(value))), *shape_of(value))
        yield Operand(value, shape)


def _is_of_ones(node: Node) -> bool:
    """Whether a reshape adds or drops dimensions of one, and nothing else."""
    return is_call(node, aten.reshape.default) and _without_ones(node) == _without_ones(node.args[0])


def _without_ones(node: Node) -> list[int]:
    return [size for size in shape_of(node) if size != 1]


def _is_each(node: Node) -> bool:
    return is_call(node, *EACH) and len(node.args[1]) == len(shape_of(node.args[0]))


def _is_elementwise(node: Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload) or is_random(node) or mutates(node):
        return False
    operands = [value for value in node.args if isinstance(value, Node)]
    return (
        (torch.Tag.pointwise in node.target.tags or node.target is aten._to_copy.default)
        and isinstance(node.meta.get("val"), torch.Tensor)
        and set(operands) == set(node.all_input_nodes)
        and all(isinstance(value.meta.get("val"), torch.Tensor) for value in operands)
    )


def _keeps_order(shape: Order, order: Order) -> bool:
    kept = [dim for dim in order if shape[dim] != 1]
    return kept == sorted(kept)


class Region:
    """The values above a permute that are computed in its order, and those of which they are made."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self.orders: dict[Node, Order] = {}  # of elementwise operations, joins and reshapes, the last first
        self.leaves: set[tuple[Node, Order]] = set()
        self.is_of_one_order = True

    def add(self, value: Node, order: Order) -> None:
        if value in self.orders:
            self.is_of_one_order &= self.orders[value] == order
        elif is_constant(value) or _keeps_order(shape_of(value), order):
            pass
        elif (
            _is_elementwise(value) or _is_of_ones(value) or is_call(value, aten.cat.default, *ALONG) or _is_each(value)
        ):
            self.orders[value] = order
            for operand in _operands(value):
                self.add(operand.value, operand.order(order))
        else:
            self.leaves.add((value, order))

    def is_read_elsewhere(self, value: Node) -> bool:
        """Whether a value stays in its own order too; a reshape stays for what it alone is read by."""
        return any(
            user is not self.root and (user not in self.orders or (_is_of_ones(user) and self.is_read_elsewhere(user)))
            for user in value.users
        )

    def frees_a_permute(self) -> bool:
        """Whether any value is a permute whose operand is read as it lies."""
        return any(
            is_call(value, aten.permute.default) and _keeps_order(shape_of(value.args[0]), _composed(value, order))
            for value, order in self.leaves
        )

    def permutes(self) -> int:
        """How many permutes more there are after than before."""
        more = -1
        for value, order in self.leaves:
            if is_call(value, aten.permute.default):
                more += not _keeps_order(shape_of(value.args[0]), _composed(value, order))
                more -= not self.is_read_elsewhere(value)
            else:
                more += 1
        return more + sum(not _is_of_ones(node) and self.is_read_elsewhere(node) for node in self.orders)

    def rewrite(self, x: Operand, order: Order) -> Node:
        """Compute all of it in its order; returns what the root reads in place of x, which is in `order`."""
        root = self.root
        back = [node for node in self.orders if not _is_of_ones(node) and self.is_read_elsewhere(node)]
        made: dict[Node, Node] = {}
        for node in [node for node in root.graph.nodes if node in self.orders]:
            with root.graph.inserting_before(node):
                made[node] = _permuted_call(node, self.orders[node], made)
        with root.graph.inserting_before(root):
            new = _permuted(x, order, made, root)
        for node in back:
            order = self.orders[node]
            inverse = sorted(range(len(order)), key=order.__getitem__)
            with root.graph.inserting_before(node):
                kept = emit(node, aten.permute.default, made[node], inverse)
            replace(node, kept)
        return new


def _composed(permute: Node, order: Order) -> Order:
    rank = len(order)
    return tuple(permute.args[1][dim] % rank for dim in order)


def _hoist(root: Node) -> bool:
    x = root.args[0]
    order = tuple(dim % len(shape_of(x)) for dim in root.args[1])
    region = Region(root)
    region.add(x, order)
    if not region.is_of_one_order or region.permutes() >= 0:
        return False
    replace(root, region.rewrite(Operand(x, shape_of(x)), order))
    return True


def _permuted_call(node: Node, order: Order, made: dict[Node, Node]) -> Node:
    operands = {operand.value: _permuted(operand, order, made, node) for operand in _operands(node)}
    if _is_of_ones(node):
        return operands[node.args[0]]
    if is_call(node, aten.cat.default):
        dim = order.index(argument(node, 1, 0) % len(order))
        return emit(node, node.target, [operands[value] for value in node.args[0]], dim)
    if is_call(node, *EACH):
        return emit(node, node.target, operands[node.args[0]], [node.args[1][dim] for dim in order])
    if is_call(node, *ALONG):
        dim = order.index(node.args[1] % len(order))
        return emit(node, node.target, operands[node.args[0]], dim, *node.args[2:], **node.kwargs)
    args: list[Any] = [operands.get(value, value) if isinstance(value, Node) else value for value in node.args]
    return emit(node, node.target, *args, **node.kwargs)


def _permuted(operand: Operand, order: Order, made: dict[Node, Node], like: Node) -> Node:
    """What an operation in another order reads in place of an operand."""
    value, own = operand.value, operand.order(order)
    if value in made:
        new = made[value]
    elif is_call(value, aten.permute.default) and not is_constant(value):
        new = _permute(value.args[0], _composed(value, own), like)
    else:
        new = _permute(value, own, like)
    shape = [operand.shape[dim] for dim in order]
    if list(shape_of(new)) != shape and is_call(new, aten.reshape.default):
        new = new.args[0]  # a view of a view costs a launch where one view costs none
    return new if list(shape_of(new)) == shape else emit(like, aten.reshape.default, new, shape)


def _permute(x: Node, order: Order, like: Node) -> Node:
    if _keeps_order(shape_of(x), order):
        shape = [shape_of(x)[dim] for dim in order]
        if list(shape_of(x)) == shape:
            return x
        source = x.args[0] if is_call(x, aten.reshape.default) else x
        return source if list(shape_of(source)) == shape else emit(like, aten.reshape.default, source, shape)
    return emit(like, aten.permute.default, x, list(order))
