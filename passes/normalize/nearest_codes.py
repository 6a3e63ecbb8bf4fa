"""The code that is nearest to a vector, by one product: codecs compare with whole codebooks, level by level.

Before   i = argmax(-(sum(x * x, -1, keepdim) - 2 * x @ codes + sum(codes * codes, 0)), -1)
         i = argmin(cdist(x, codes.T), -1)
After    i = argmax(linear(x, 2 * codes, -sum(codes * codes, 0)), -1)

The length of x is the same for all codes: without it, their scores keep more digits. Codes are parameters.
"""

import math
from collections.abc import Iterator

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, is_call, shape_of
from tt_dynamo.passes.rewrite import MUL, VIEWS, Rules, arguments, emit, is_constant, is_number

RULES = Rules()
Term = tuple[float, Node]


def nearest_codes(graph: Graph, context: Context) -> int:
    """Rewrite every choice of a nearest code; returns how many."""
    return RULES.apply(graph)


@RULES.on(aten.argmax.default, aten.argmin.default)
def _nearest(node: Node) -> Node | None:
    scores, dim, keepdim = arguments(node).values()
    rank = len(shape_of(scores))
    if dim is None or not rank or dim % rank != rank - 1:
        return None
    found = _by_product(scores, 1 if node.target is aten.argmax.default else -1) or (
        _by_distance(scores) if node.target is aten.argmin.default else None
    )
    if found is None:
        return None
    return emit(node, aten.argmax.default, emit(scores, operators.linear, *found), -1, keepdim)


def _by_product(scores: Node, sign: int) -> tuple[Node, Node, Node | None] | None:
    """Operands of the linear of scores that are sums around a product and the length of what it multiplies."""
    terms = [*_terms(scores, sign)]
    products = [term for term in terms if is_call(term[1], operators.linear)]
    if len(products) != 1:
        return None
    factor, product = products[0]
    x, weight, *more = product.args
    scale, x = _scaled(x)
    rest = [(of, term) for of, term in terms if term is not product and not _is_squared_length(term, x)]
    if len(rest) != len(terms) - 2 or any(more) or product.kwargs or not is_constant(weight):
        return None
    if not all(is_constant(term) and math.prod(shape_of(term)) == shape_of(weight)[-1] for _, term in rest):
        return None
    row = None
    for of, term in rest:
        addend = _times(emit(product, aten.reshape.default, term, [shape_of(weight)[-1]]), of)
        row = addend if row is None else emit(product, aten.add.Tensor, row, addend)
    return x, _times(weight, factor * scale), row


def _by_distance(scores: Node) -> tuple[Node, Node, Node] | None:
    """The same of distances that are computed as such, between rows and the codes [1, ..., codes, width]."""
    distance = scores
    while is_call(distance, *VIEWS, aten.select.int) and len(distance.users) == 1:
        distance = distance.args[0]
    if not is_call(distance, aten._euclidean_dist.default) or shape_of(distance)[-1:] != shape_of(scores)[-1:]:
        return None
    x, codes = distance.args
    if not is_constant(codes) or math.prod(shape_of(codes)[:-2]) != 1 or len(distance.users) != 1:
        return None
    if math.prod(shape_of(distance)) != math.prod(shape_of(scores)):
        return None  # some of the rows
    count, width = shape_of(codes)[-2:]
    codes = emit(distance, aten.reshape.default, codes, [count, width])
    lengths = emit(distance, aten.sum.dim_IntList, emit(distance, aten.mul.Tensor, codes, codes), [1])
    rows = emit(distance, aten.reshape.default, x, [*shape_of(scores)[:-1], width])
    weight = emit(distance, aten.permute.default, codes, [1, 0])
    return rows, _times(weight, 2), _times(lengths, -1)


def _terms(value: Node, factor: float) -> Iterator[Term]:
    """The terms of a sum that nothing else reads, each with its factor."""
    if len(value.users) == 1 and value.op == "call_function":
        given = [*value.args]
        if is_call(value, aten.neg.default):
            yield from _terms(given[0], -factor)
            return
        is_sum = is_call(value, aten.add.Tensor, aten.sub.Tensor) and not value.kwargs
        if is_sum and all(isinstance(operand, Node) for operand in given):
            yield from _terms(given[0], factor)
            yield from _terms(given[1], factor if value.target is aten.add.Tensor else -factor)
            return
        if is_call(value, *MUL) and is_number(given[1]):
            yield from _terms(given[0], factor * given[1])
            return
    yield factor, value


def _scaled(x: Node) -> Term:
    """x without a number that multiplies it, and the number."""
    is_scaled = is_call(x, *MUL) and is_number(x.args[1])
    return (x.args[1], x.args[0]) if is_scaled else (1, x)


def _times(value: Node, factor: float) -> Node:
    return value if factor == 1 else emit(value, aten.mul.Tensor, value, factor)


def _is_squared_length(term: Node, x: Node) -> bool:
    """Whether it is sum(x * x, -1, keepdim)."""
    if not is_call(term, aten.sum.dim_IntList) or shape_of(term) != (*shape_of(x)[:-1], 1):
        return False
    square, dims = term.args[0], term.args[1]
    is_square = is_call(square, aten.mul.Tensor) and [*square.args] == [x, x]
    return is_square and [dim % len(shape_of(x)) for dim in dims] == [len(shape_of(x)) - 1]
