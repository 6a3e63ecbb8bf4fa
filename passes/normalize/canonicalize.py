"""ATen idioms back to the operation they mean, in one spelling each.

Before   addmm(bias, view(x), w); view   linear(x, w, bias)            matmul(x, w)   transpose, squeeze
After    linear(x, w, bias)              linear(x, permute(w), bias)   linear(x, w)   permute, reshape

What is computed twice is computed once. Moves of data that do nothing vanish, runs of them join, and linear commutes
with moves of the leading dimensions: upwards where that completes the merging of heads, downwards everywhere else.
"""

import bisect
import itertools
import math
import operator
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import (
    Context,
    aten,
    dtype_of,
    is_call,
    is_random,
    literal_value,
    mutates,
    only_user,
    reads_too_late,
    replace,
    shape_of,
)
from tt_dynamo.passes.movement import dim_of, is_move, moves_leading, moves_rows, start_of
from tt_dynamo.passes.rewrite import Rules, arguments, as_dtype, call, emit, is_constant, is_node, once, variable

RULES = Rules()
RESHAPES = (
    aten.reshape.default, aten.view.default, aten._unsafe_view.default, aten.unsqueeze.default, aten.squeeze.default,
    aten.squeeze.dim, aten.squeeze.dims,
)  # fmt: skip


def canonicalize(graph: Graph, context: Context) -> int:
    """Apply the rules until nothing changes; returns how many rewrites."""
    changed = share_equal(graph) + RULES.apply(graph)
    while shared := share_equal(graph):
        changed += shared + RULES.apply(graph)
    return changed


# --- shared work -----------------------------------------------------------------------------------------------------


def share_equal(graph: Graph) -> int:
    """Compute what several nodes compute alike once (masks are rebuilt in every layer); returns how many went."""
    seen: dict[Any, Node] = {}
    shareable = ("call_function", "get_attr")  # of which one name is one literal
    nodes = [n for n in graph.nodes if n.op in shareable and not is_random(n) and not mutates(n)]
    for node in nodes:
        # Names of nodes are unique within a graph, and 1 is not 1.0.
        first = seen.setdefault((node.target, repr((node.args, node.kwargs))), node)
        if first is not node:
            first.meta["nn_module_stack"] = _common_modules(first, node)
            replace(node, first)
    return len(nodes) - len(seen)


def _common_modules(one: Node, other: Node) -> dict:
    """The modules that hold both: where work that they share belongs."""
    stacks = (node.meta.get("nn_module_stack", {}).items() for node in (one, other))
    return dict(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*stacks, strict=False)))


# --- moves of data ---------------------------------------------------------------------------------------------------


def _same(node: Node) -> Node | None:
    """The node's first argument, where no output comes to share memory with an input, and nothing reads too late."""
    return node.args[0] if _can_be(node, node.args[0]) else None


def _can_be(node: Node, source: Node) -> bool:
    is_given_away = source.op == "placeholder" and any(user.op == "output" for user in node.users)
    return not is_given_away and not reads_too_late(node, source)


@RULES.on(
    aten.alias.default, aten.detach.default, aten.clone.default, aten.lift_fresh_copy.default, aten._to_copy.default,
    aten.expand.default, aten.slice.Tensor,
)  # fmt: skip
def _drop_copy(node: Node) -> Node | None:
    if node.target in (aten.alias.default, aten.detach.default):
        return node.args[0]  # an alias of an input is that input in eager torch too
    source, result = node.args[0].meta["val"], node.meta["val"]
    unchanged = (source.shape, source.dtype, source.device) == (result.shape, result.dtype, result.device)
    return _same(node) if unchanged else None


@RULES.on(*RESHAPES)
def _reshape(node: Node) -> Node | None:
    source, shape = node.args[0], list(shape_of(node))
    if shape == list(shape_of(source)):
        return _same(node)
    if is_call(source, aten.reshape.default):
        source = source.args[0]
    is_plain = node.target is aten.reshape.default and list(node.args) == [source, shape]
    return None if is_plain else emit(node, aten.reshape.default, source, shape)


@RULES.on(aten.permute.default, aten.transpose.int, aten.t.default)
def _permute(node: Node) -> Node | None:
    source = node.args[0]
    order = [*range(len(shape_of(source)))]
    if node.target is aten.permute.default:
        order = [order[dim] for dim in node.args[1]]
    elif len(order) > 1:
        one, other = node.args[1:] or (0, 1)
        order[one], order[other] = order[other], order[one]
    if order == sorted(order):
        return _same(node)
    if is_call(source, aten.permute.default):
        return emit(node, aten.permute.default, source.args[0], [source.args[1][i] for i in order])
    kept = [i for i in order if shape_of(source)[i] != 1]
    if kept == sorted(kept):
        return emit(node, aten.reshape.default, source, list(shape_of(node)))
    is_plain = node.target is aten.permute.default and list(node.args[1]) == order
    return None if is_plain else emit(node, aten.permute.default, source, order)


@RULES.on(aten.slice.Tensor, aten.select.int)
def _cut_part(node: Node) -> Node | None:
    """What is cut out of one part of a concatenation, or is several of its parts.

    Of slices that are written one by one, the next reads some; `x[1:] += y` reads all it wrote back, and writes it.
    """
    joined, dim = node.args[0], dim_of(node)
    if not is_call(joined, aten.cat.default):
        return None
    (parts, joined_dim), (_, _, *place) = arguments(joined).values(), arguments(node).values()
    shape, is_slice = shape_of(joined), node.target is aten.slice.Tensor
    if joined_dim % len(shape) != dim or any(len(shape_of(part)) != len(shape) for part in parts):
        return None
    numbers, ends = range(shape[dim]), [*itertools.accumulate((shape_of(part)[dim] for part in parts), initial=0)]
    wanted, step = numbers[slice(*place[:2])] if is_slice else [numbers[place[0]]], place[2] if is_slice else 1
    if not len(wanted):
        return None
    first, behind = wanted[0], wanted[-1] + 1
    at, last = bisect.bisect(ends, first) - 1, bisect.bisect_left(ends, behind)
    read = parts[at:last]
    if any(dtype_of(part) != dtype_of(node) or not _can_be(node, part) for part in read):
        return None
    if len(read) == 1:
        there = [first - ends[at], *([behind - ends[at], step] if is_slice else [])]
        return emit(node, node.target, read[0], dim, *there)
    return emit(node, aten.cat.default, read, dim) if (ends[at], ends[last], step) == (first, behind, 1) else None


@RULES.on(aten.slice.Tensor, aten.select.int)
def _cut_once(node: Node) -> Node | None:
    """x[i : i + 1] and x[i] as one cut: the second is a reshape of the first."""
    whole, dim = node.args[0], dim_of(node)
    start, is_one = start_of(node), shape_of(node)[dim : dim + 1] == (1,) or is_call(node, aten.select.int)
    for user in whole.users if is_one else ():
        is_other = is_call(user, aten.slice.Tensor, aten.select.int) and user.target is not node.target and user < node
        is_same = is_other and dim_of(user) == dim and start_of(user) == start
        if is_same and user.meta["val"].numel() == node.meta["val"].numel() and _can_be(node, user):
            return emit(node, aten.reshape.default, user, list(shape_of(node)))
    return None


# --- linear layers and products --------------------------------------------------------------------------------------


@RULES.on(aten.linear.default)
def _whole_linear(node: Node) -> Node:
    """linear(x, w [out, in], b) → linear(x, permute(w), b), of at least one row."""
    x, weight, *bias = node.args
    if len(shape_of(weight)) == 1:
        return emit(node, aten.matmul.default, x, weight)
    rows = x if len(shape_of(x)) > 1 else emit(node, aten.reshape.default, x, [1, *shape_of(x)])
    product = emit(node, operators.linear, rows, emit(node, aten.permute.default, weight, [1, 0]), *bias)
    return product if rows is x else emit(node, aten.reshape.default, product, list(shape_of(node)))


@RULES.on(aten.mm.default, aten.addmm.default)
def _linear(node: Node) -> Node | None:
    *bias, x, weight = node.args
    is_row = all(shape_of(b) == shape_of(weight)[1:] and dtype_of(b).is_floating_point for b in bias)
    return emit(node, operators.linear, x, weight, *bias) if is_row and not node.kwargs else None


@RULES.on(aten.matmul.default)
def _matmul(node: Node) -> Node | None:
    """A product of matrices with equal leading dimensions, or a linear where all of them meet one matrix."""
    a, b = node.args
    ranks = len(shape_of(a)), len(shape_of(b))
    if ranks in ((1, 1), (2, 1)):
        return emit(node, aten.dot.default if ranks == (1, 1) else aten.mv.default, a, b)
    if 1 in ranks:
        a = a if ranks[0] > 1 else emit(node, aten.reshape.default, a, [1, *shape_of(a)])
        b = b if ranks[1] > 1 else emit(node, aten.reshape.default, b, [*shape_of(b), 1])
        return emit(node, aten.reshape.default, emit(node, aten.matmul.default, a, b), list(shape_of(node)))
    if math.prod(shape_of(b)[:-2]) == 1 and ranks[0] >= ranks[1]:
        return emit(node, operators.linear, a, emit(node, aten.reshape.default, b, list(shape_of(b)[-2:])))
    if shape_of(a)[:-2] == shape_of(b)[:-2]:
        return None
    leading = shape_of(node)[:-2]
    whole = [emit(node, aten.expand.default, x, [*leading, *shape_of(x)[-2:]]) for x in (a, b)]
    return emit(node, aten.matmul.default, *whole)


@RULES.on(aten.reshape.default)
def _batched_product(node: Node) -> Node | None:
    """reshape(bmm(reshape(a), b)) with a or b [x, y, rows, columns] → matmul(a, reshape(b))."""
    product, leading = node.args[0], shape_of(node)[:2]
    if not is_call(product, aten.bmm.default) or only_user(product) is None:
        return None
    shapes = [(*leading, *shape_of(x)[1:]) for x in (*product.args, product)]
    sources = [x.args[0] if is_call(x, aten.reshape.default) else x for x in product.args]
    there = [shape_of(x) == shape for x, shape in zip((*sources, node), shapes, strict=False)]
    if not any(there[:2]) or not there[2]:
        return None
    a, b = (
        source if is_there else emit(node, aten.reshape.default, x, list(shape))
        for source, is_there, x, shape in zip(sources, there, product.args, shapes, strict=False)
    )
    return emit(node, aten.matmul.default, a, b)


@RULES.on(operators.linear)
def _multiply_before_move(node: Node) -> Node | None:
    """linear(move(x)) → move(linear(x)), unless heads are being merged, or several read rows of images.

    What changes tiles and something else reads stays before the linear, or it would be moved twice.
    """
    x, *rest = node.args
    if not moves_leading(x) or is_move(_behind_moves_of_rows(x)):
        return None
    is_read_moved = not all(is_call(user, operators.linear) for user in x.users)
    if is_read_moved and is_call(x, aten.reshape.default) and moves_rows(x):
        return None
    batch, *ones = shape_of(x)[:-1]
    if ones == [1] and batch > 1 and len(x.users) > 1:
        return None  # a row of each image, as all of its scales and shifts read it (`passes/fuse/conditions.py`)
    return _moved(x, emit(node, operators.linear, x.args[0], *rest, **node.kwargs), node)


@RULES.on(aten.reshape.default, aten.permute.default)
def _move_before_linear(node: Node) -> Node | None:
    """move(linear(x)) → linear(move(x)), where x is on its way out of heads, and the move completes it."""
    product = node.args[0]
    if not is_call(product, operators.linear) or only_user(product) is None or not moves_leading(node):
        return None
    x, *rest = product.args
    if not is_move(_behind_moves_of_rows(x)):
        return None
    return emit(product, operators.linear, _moved(node, x, product), *rest, **product.kwargs)


def _moved(move: Node, x: Node, like: Node) -> Node:
    """x with its rows where `move` moves them."""
    where = [*shape_of(move)[:-1], shape_of(x)[-1]] if move.target is aten.reshape.default else move.args[1]
    return emit(like, move.target, x, where)


def _behind_moves_of_rows(x: Node) -> Node:
    while moves_leading(x):
        x = x.args[0]
    return x


# --- norms, softmax, attention ---------------------------------------------------------------------------------------


@RULES.on(aten.pow.Tensor_Scalar)
def _square(node: Node) -> Node | None:
    """x ** 2 as x * x, which passes know where to keep (the squared relu of Persimmon and Nemotron)."""
    x, exponent = node.args
    is_square = exponent == 2 and dtype_of(x).is_floating_point and dtype_of(x) == dtype_of(node)
    return emit(node, aten.mul.Tensor, x, x) if is_square else None


@RULES.on(aten.softmax.int, aten.log_softmax.int)
def _softmax(node: Node) -> Node | None:
    """Of an operand in the dtype that is asked for."""
    x, dim, *dtype = node.args
    return emit(node, node.target, as_dtype(x, dtype_of(node), node), dim) if dtype else None


@RULES.on(aten.layer_norm.default, aten.group_norm.default)
def _norm(node: Node) -> Node | None:
    """With all of its arguments but the last, which says how it is computed."""
    args = (*arguments(node).values(),)[:5]
    return None if node.args == args and not node.kwargs else emit(node, node.target, *args)


@RULES.on(aten.scaled_dot_product_attention.default)
def _attention(node: Node) -> Node | None:
    """With all of its arguments; enable_gqa only where heads are shared."""
    *args, scale, _ = arguments(node).values()
    grouped = {"enable_gqa": True} if shape_of(args[0])[-3:-2] != shape_of(args[1])[-3:-2] else {}
    kwargs = {"scale": scale, **grouped}
    return None if [*node.args] == args and node.kwargs == kwargs else emit(node, node.target, *args, **kwargs)


# --- several results -------------------------------------------------------------------------------------------------

EXTREMES = {
    aten.max.dim: (aten.amax.default, aten.argmax.default),
    aten.min.dim: (aten.amin.default, aten.argmin.default),
}


@RULES.on(operator.getitem)
def only_result(node: Node) -> Node | None:
    """Operations with other results that nothing reads become the operation with one."""
    call, index = node.args
    if any(user.op != "call_function" or user.args[1] != index for user in call.users):
        return None
    if is_call(call, *EXTREMES) and (index == 0 or dtype_of(call.args[0]) != torch.bool):
        x, dim, keepdim = arguments(call).values()  # torch has no place of the largest boolean
        return emit(node, EXTREMES[call.target][index], x, dim if index else [dim], keepdim)
    if is_call(call, aten.native_layer_norm.default) and index == 0:
        return emit(node, aten.layer_norm.default, *call.args)
    if is_call(call, aten._scaled_dot_product_flash_attention_for_cpu.default) and index == 0:
        query, key, value, dropout, is_causal, mask, scale = arguments(call).values()
        args = (query, key, value, mask, dropout, is_causal)
        sdpa = aten.scaled_dot_product_attention.default
        return None if dropout else emit(node, sdpa, *args, scale=scale, enable_gqa=True)
    return None


# --- masks -----------------------------------------------------------------------------------------------------------


@RULES.on(aten.bitwise_and.Tensor, aten.logical_and.default)
def _and_true(node: Node) -> Node | None:
    """And with what is true everywhere is the other operand."""
    a, b = node.args
    if not is_node(b) or not dtype_of(a) == dtype_of(b) == torch.bool:
        return None
    for one, other in ((a, b), (b, a)):
        value = literal_value(one)
        if value is not None and bool(value.all()):
            return emit(node, aten.expand.default, other, list(shape_of(node)))
    return None


@RULES.on(aten.where.self)
def _where_of_scalars(node: Node) -> Node | None:
    """Choosing between two numbers: before the condition is broadcast, and with the numbers as scalars."""
    condition, *choices = node.args
    values = [None if shape_of(x) else literal_value(x) for x in choices]
    if any(value is None for value in values) or dtype_of(node) != torch.get_default_dtype():
        return None
    source = condition.args[0] if is_call(condition, aten.expand.default) else condition
    chosen = emit(node, aten.where.Scalar, source, *(value.item() for value in values if value is not None))
    return emit(node, aten.expand.default, chosen, list(shape_of(node)))


# --- sums ------------------------------------------------------------------------------------------------------------


@RULES.on(aten.add.Tensor)
def _add_zero(node: Node) -> Node | None:
    x, number = node.args
    is_zero = type(number) is int and number == 0 and not node.kwargs
    return _same(node) if is_zero and dtype_of(x) == dtype_of(node) else None


def _add_constants(node: Node, x: Node, c: Node, d: Node) -> Node | None:
    """Of x + c + d, the constants are added first."""
    if is_constant(x) or not dtype_of(node) == dtype_of(x) == dtype_of(c) == dtype_of(d):
        return None
    return emit(node, aten.add.Tensor, x, emit(node, aten.add.Tensor, c, d))


def _join_bias(node: Node, x: Node, c: Node) -> Node | None:
    """A constant that is added to a linear without a bias, or to what moves its rows, is its bias."""
    linear = x
    while moves_leading(linear) and len(linear.users) == 1:
        linear = linear.args[0]
    if not is_call(linear, operators.linear) or len(linear.args) != 2 or len(linear.users) != 1 or linear < c:
        return None
    if shape_of(c) != shape_of(linear)[-1:] or dtype_of(c) != dtype_of(linear):
        return None
    linear.args = (*linear.args, c)
    return x


x = variable("x")
c, d = (variable(name, lambda value: is_node(value) and is_constant(value)) for name in ("c", "d"))
RULES.add("add_constants", call(aten.add.Tensor, once(call(aten.add.Tensor, x, c)), d), _add_constants)
RULES.add("join_bias", call(aten.add.Tensor, x, c), _join_bias)
