"""Associative scans that torch computes by halves, as one recurrence.

Before   scan(a, b) = interleave(cat(b[:1], a[2::2] * odd + b[2::2]), odd)
         where odd = scan(a[:-1:2] * a[1::2], a[1::2] * b[:-1:2] + b[1::2])
After    linear_recurrence(a, b, 0)

That is what torch.associative_scan makes in graphs of a linear recurrence (Mamba's). Of one token it is b.
Source: Blelloch 1990, https://www.cs.cmu.edu/~guyb/papers/Ble93.pdf
"""

import math
from collections.abc import Iterator
from typing import Any

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, replace, shape_of
from tt_dynamo.passes.rewrite import VIEWS, arguments, emit


def fuse_scans(graph: Graph, context: Context) -> int:
    """Fuse every scan that matches; returns how many."""
    count = 0
    inner: set[Node] = set()
    for node in reversed(graph.nodes):
        if node in inner or not is_call(node, *VIEWS, aten.slice.Tensor):
            continue
        scan = _scan(node, inner)
        if scan is None:
            continue
        a, b = scan
        with graph.inserting_before(node):
            shape = shape_of(b)
            rows = [emit(node, aten.reshape.default, x, [shape[0], math.prod(shape[1:])]) for x in (a, b)]
            zero = emit(node, aten.zeros.default, [*shape_of(rows[1])[1:]], dtype=dtype_of(b))
            states = emit(node, operators.linear_recurrence, *rows, zero)
            replace(node, emit(node, aten.reshape.default, states, [*shape]))
        count += 1
    dead_code(graph)
    return count


def _scan(node: Node, inner: set[Node]) -> tuple[Node, Node] | None:
    """a and b of which a value is the scan; what it is made of is added to `inner`."""
    halves = _halves(node)
    if halves is None:
        return None
    size, (even, odd) = shape_of(node)[0], halves
    last = (None, odd) if size // 2 == 1 else _scan(odd, inner)
    if last is None:
        return None
    factors, terms = last
    for second, one, other in _sums_of_products(terms):
        for x, y in ((one, other), (other, one)):
            a, b = _every_other(x, 1, size), _every_other(second, 1, size)
            if a is None or b is None or _every_other(y, 0, size - size % 2) is not b:
                continue
            if shape_of(a) == shape_of(b) and _is_of(factors, a, size) and _is_even(even, odd, a, b):
                inner.update((odd, node.args[0]))
                return a, b
    return None


def _halves(node: Node) -> tuple[Node, Node] | None:
    """The even and the odd places of which a value is made in turn along its first dimension."""
    if not shape_of(node):
        return None
    size = shape_of(node)[0]
    if is_call(node, aten.slice.Tensor):
        if _range(node) != (0, size, 1) or shape_of(node.args[0])[0] != size + 1 or size % 2 == 0:
            return None
        node = node.args[0]
    if not is_call(node, *VIEWS) or not is_call(node.args[0], aten.stack.default):
        return None
    stack = node.args[0]
    if list(stack.args[1:]) != [1] or len(stack.args[0]) != 2:
        return None
    even, odd = stack.args[0]
    if shape_of(node) != (2 * shape_of(even)[0], *shape_of(even)[1:]):
        return None
    if size % 2:
        if not is_call(odd, aten.constant_pad_nd.default) or any(odd.args[1][:-1]) or odd.args[1][-1] != 1:
            return None
        odd = odd.args[0]
    return (even, odd) if shape_of(odd)[0] == size // 2 else None


def _is_of(factors: Node | None, a: Node, size: int) -> bool:
    """Whether these are the products of each two factors; None where none are needed."""
    if factors is None:
        return True
    if not is_call(factors, aten.mul.Tensor):
        return False
    one, other = factors.args
    return any(
        _every_other(x, 0, size - size % 2) is a and _every_other(y, 1, size) is a
        for x, y in ((one, other), (other, one))
    )


def _is_even(even: Node, odd: Node, a: Node, b: Node) -> bool:
    """Whether these are the first term, and of every second one later what follows from the odd place before."""
    size = shape_of(b)[0]
    rest = None
    if size > 2:
        if not is_call(even, aten.cat.default) or len(even.args[0]) != 2 or any(even.args[1:]):
            return False
        even, rest = even.args[0]
    if not is_call(even, aten.slice.Tensor) or even.args[0] is not b or _range(even) != (0, 1, 1):
        return False
    return rest is None or any(
        _every_other(second, 2, size) is b and _every_other(x, 2, size) is a and _is_before(y, odd, size)
        for second, one, other in _sums_of_products(rest)
        for x, y in ((one, other), (other, one))
    )


def _is_before(node: Node, odd: Node, size: int) -> bool:
    if size % 2:
        return node is odd
    return is_call(node, aten.slice.Tensor) and node.args[0] is odd and _range(node) == (0, size // 2 - 1, 1)


def _sums_of_products(node: Node) -> Iterator[tuple[Node, Node, Node]]:
    """(z, x, y) for each way to read a value as x * y + z."""
    if is_call(node, aten.add.Tensor) and len(node.args) == 2 and not node.kwargs:
        for product, term in (node.args, node.args[::-1]):
            if is_call(product, aten.mul.Tensor):
                yield term, *product.args


def _every_other(node: Any, first: int, end: int) -> Node | None:
    """The tensor of `end` places or one more of which a value has every second one from `first` on."""
    if not is_call(node, aten.slice.Tensor):
        return None
    x = node.args[0]
    found = _range(node)
    return x if found is not None and range(*found) == range(first, end, 2) and shape_of(x)[0] - end in (0, 1) else None


def _range(node: Node) -> tuple[int, int, int] | None:
    """What a slice along the first dimension takes: from, to, step."""
    given = arguments(node)
    if given["dim"] != 0:
        return None
    return slice(given["start"], given["end"], given["step"]).indices(shape_of(given["self"])[0])
