"""What loops over tokens compute, for all tokens at once.

Before   y_0 = f(x[:, 0], w);   y_1 = f(x[:, 1], w);   …
After    y = f(permute(x, token first), w)

A series is a list of nodes, of each token one; stacked, it has the tokens as its first dimension. A series of one
value many times stays that value. Operations become the same operations on tensors with one dimension more, in front.
"""

import itertools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from tt_dynamo.ir.graph import aten, dtype_of, is_call, is_random, mutates, shape_of
from tt_dynamo.passes.rewrite import arguments, emit

Series = tuple[Any, ...]  # of nodes, or of what is given as an argument in place of one
Stack = Callable[[Series], Any]  # a series' stacked value, None where it has none
ALIKE = 4  # operations that are compared
ALIASES = (aten.alias.default, aten.detach.default, aten.clone.default, aten.lift_fresh_copy.default)
RESHAPES = (aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.squeeze.dim, aten.squeeze.dims)
PRODUCTS = (aten.matmul.default, aten.mm.default, aten.bmm.default)
ALONG = (aten.softmax.int, aten._softmax.default, aten.sum.dim_IntList, aten.mean.dim, aten.amax.default)


def source(value: Any) -> Any:
    """What `value` is an equal copy of: values are all that a stacked tensor keeps of its parts."""
    while is_call(value, *ALIASES, aten.copy.default):
        copied = value.args[1] if value.target is aten.copy.default else value.args[0]
        if (shape_of(copied), dtype_of(copied)) != (shape_of(value), dtype_of(value)):
            break
        value = copied
    return value


def is_same(series: Series) -> bool:
    """Whether all of a series are one value, or computed alike in a few operations."""
    return all(_is_equal(value, series[0], ALIKE) for value in series)


def _is_equal(one: Any, other: Any, operations: int) -> bool:
    if one is other:
        return True
    if isinstance(one, (list, tuple)) and type(one) is type(other):
        return len(one) == len(other) and all(map(_is_equal, one, other, itertools.repeat(operations)))
    if not isinstance(one, Node):
        return type(one) is type(other) and bool(one == other)
    if not operations or not isinstance(other, Node) or (one.op, one.target) != ("call_function", other.target):
        return False
    alike = not is_random(one) and not mutates(one) and one.kwargs == other.kwargs
    return alike and _is_equal(one.args, other.args, operations - 1)


def parts_in_order(series: Series, at: Node) -> Node | None:
    """Series of neighbouring places of one tensor along one dimension: that dimension comes to the front."""
    parts = [part for value in series if (part := part_of(value)) is not None]
    if len(parts) < len(series):
        return None
    x, dim, start, size, kept = parts[0]
    if [part for part in parts if part != (x, dim, part[2], size, kept)]:
        return None
    if [part[2] for part in parts] != list(range(start, start + size * len(parts), size)):
        return None
    shape = shape_of(x)
    if size * len(parts) != shape[dim]:
        x = emit(at, aten.slice.Tensor, x, dim, start, start + size * len(parts))
    if kept:  # a part keeps the dimension
        x = emit(at, aten.reshape.default, x, [*shape[:dim], len(parts), size, *shape[dim + 1 :]])
    order = [dim, *(d for d in range(len(shape_of(x))) if d != dim)]
    return emit(at, aten.permute.default, x, order)


def part_of(value: Any) -> tuple[Node, int, int, int, bool] | None:
    """The tensor of which `value` is a part: along which dimension, from where, how much, and whether that stays."""
    if is_call(value, aten.select.int):
        x, dim, index = value.args
        dim %= len(shape_of(x))
        return x, dim, index % shape_of(x)[dim], 1, False
    if is_call(value, aten.slice.Tensor):
        given = arguments(value)
        x, dim = given["self"], given["dim"] % len(shape_of(given["self"]))
        start, _, step = slice(given["start"], given["end"], given["step"]).indices(shape_of(x)[dim])
        return (x, dim, start, shape_of(value)[dim], True) if step == 1 else None
    if is_call(value, operator.getitem) and is_call(value.args[0], aten.unbind.int, aten.split.Tensor):
        parts, index = value.args
        given = arguments(parts)
        x, dim = given["self"], given["dim"] % len(shape_of(given["self"]))
        if parts.target is aten.unbind.int:
            return x, dim, index, 1, False
        return x, dim, index * given["split_size"], shape_of(value)[dim], True
    return None


def stacked_call(series: Series, at: Node, stack: Stack) -> Node | None:
    """Series of calls of one operation: the operation of the stacked operands."""
    first = series[0]
    target = first.target
    if first.op != "call_function" or not isinstance(target, torch._ops.OpOverload) or is_random(first):
        return None
    shapes = {(shape_of(node), dtype_of(node)) for node in series if isinstance(node.meta.get("val"), torch.Tensor)}
    if len(shapes) != 1 or any(node.target is not target for node in series):
        return None
    given = [arguments(node) for node in series]
    operands: dict[str, Any] = {}
    for name in given[0]:
        each = tuple(source(arguments_[name]) for arguments_ in given)
        operands[name] = each[0] if is_same(each) else stack(each)
        if operands[name] is None and each[0] is not None:
            return None
    stacked = {name for name in operands if not is_same(tuple(source(one[name]) for one in given))}
    if not stacked:
        return None
    return _call(series, at, operands, stacked)


def _call(series: Series, at: Node, operands: dict[str, Any], stacked: set[str]) -> Node | None:
    first, count = series[0], len(series)
    target, shape = first.target, shape_of(first)
    nodes = {name: value for name, value in operands.items() if isinstance(value, Node)}
    if torch.Tag.pointwise in target.tags or target in PRODUCTS:
        rank = len(shape)
        if target in PRODUCTS:
            target, ranks = aten.matmul.default, [len(shape_of(v)) - (name in stacked) for name, v in nodes.items()]
            if min(ranks) < 2:
                return None
        operands = {name: _aligned(v, rank, at) if name in stacked else v for name, v in operands.items()}
        return _emit(at, target, operands)
    if stacked != {next(iter(operands))}:
        return None
    x = next(iter(operands.values()))
    if target is aten.linear.default:
        return _emit(at, target, operands) if len(shape) > 1 else None
    if target is aten._to_copy.default:
        return _emit(at, target, operands)
    rank = len(shape_of(x)) - 1
    if target in RESHAPES or target is aten.unsqueeze.default:
        return emit(at, aten.reshape.default, x, [count, *shape])
    if target is aten.expand.default:
        return emit(at, aten.expand.default, _aligned(x, len(shape), at), [count, *shape])
    if target is aten.permute.default:
        return emit(at, target, x, [0, *(dim % rank + 1 for dim in operands["dims"])])
    if target in (aten.transpose.int, aten.t.default):
        one, other = (operands["dim0"], operands["dim1"]) if target is aten.transpose.int else (0, 1)
        return emit(at, aten.transpose.int, x, one % rank + 1, other % rank + 1) if rank > 1 else None
    if target in (aten.select.int, aten.slice.Tensor) or (target in ALONG and isinstance(operands["dim"], int)):
        return _emit(at, target, {**operands, "dim": operands["dim"] % rank + 1})
    if target in ALONG and operands["dim"]:
        return _emit(at, target, {**operands, "dim": [dim % rank + 1 for dim in operands["dim"]]})
    return None


def _aligned(x: Node, rank: int, at: Node) -> Node:
    """Stacked x of parts with `rank` dimensions, those that it lacks in front of its own."""
    count, *shape = shape_of(x)
    missing = rank - len(shape)
    return emit(at, aten.reshape.default, x, [count, *[1] * missing, *shape]) if missing else x


def _emit(at: Node, target: Any, operands: dict[str, Any]) -> Node:
    """A call with arguments by their names in the schema: those without a default, and others, by place or by name."""
    positions = [argument for argument in target._schema.arguments if not argument.kwarg_only]
    args = [operands[argument.name] for argument in positions if argument.name in operands]
    keywords = {a.name: operands[a.name] for a in target._schema.arguments if a.kwarg_only and a.name in operands}
    return emit(at, target, *args, **{name: value for name, value in keywords.items() if value is not None})


def to_dimension(x: Node, dim: int, kept: bool, at: Node) -> Node:
    """Stacked x with the tokens as dimension `dim` of its parts, in front of which they lie; kept: merged with it."""
    shape = shape_of(x)
    order = [*range(1, dim + 1), 0, *range(dim + 1, len(shape))]
    x = emit(at, aten.permute.default, x, order)
    if not kept:
        return x
    merged = list(shape_of(x))
    return emit(at, aten.reshape.default, x, [*merged[:dim], merged[dim] * merged[dim + 1], *merged[dim + 2 :]])
