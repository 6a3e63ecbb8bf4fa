"""Products with constants of which some is left out, and linears that are read with several biases.

Before   q = linear(x, w, b);   y = heads(q) + c;   z = heads(q) + d             c, d of parameters, [heads, head_dim]
After    y = heads(linear(x, w, b + c));   z = heads(linear(x, w, b + d))

Before   y = (x @ w)[..., 1:2]              After    y = x @ w[..., 1:2]         where nothing else is read of x @ w

Attention to relative positions has a bias of the queries for what they mean and another one for where they stand
(Transformer-XL, XLNet, Funnel, Conformer). A linear adds one for nothing, and its heads are those of attention.

Source of the biases: Dai et al. 2019, https://arxiv.org/abs/1901.02860
"""

import math

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.passes.fuse.linears import has_own_weights
from tt_dynamo.passes.movement import SPLITS_BY_SIZE, cut_of
from tt_dynamo.passes.rewrite import emit, is_constant

PRODUCTS = (aten.bmm.default, aten.matmul.default)


def split_biases(graph: Graph, context: Context) -> int:
    """Give every linear that is read with biases only those of its own; returns how many."""
    count = sum(map(_split, graph.find_nodes(op="call_function", target=operators.linear)))
    dead_code(graph)
    return count


def cut_constants(graph: Graph, context: Context) -> int:
    """Cut the constant of every product of which one part alone is read; returns how many."""
    count = sum(_cut(node) for target in PRODUCTS for node in graph.find_nodes(op="call_function", target=target))
    dead_code(graph)
    return count


def _split(linear: Node) -> bool:
    if not has_own_weights(linear):
        return False
    moves, x = list[Node](), linear
    while (user := only_user(x)) is not None and is_call(user, aten.reshape.default):
        moves.append(user)
        x = user
    sums = list(x.users)
    biases = [_bias(node, x, shape_of(linear)[-1]) for node in sums]
    if not moves and len(sums) == 1 or None in biases:
        return False
    weight, own = (*linear.args[1:], None)[:2]
    for node, bias in zip(sums, biases, strict=True):
        with linear.graph.inserting_before(node):
            vector = emit(node, aten.reshape.default, bias, [shape_of(linear)[-1]])
            vector = vector if own is None else emit(node, aten.add.Tensor, own, vector)
            made = emit(node, operators.linear, linear.args[0], weight, vector)
            for move in moves:
                made = emit(move, move.target, made, *move.args[1:])
            replace(node, made)
    return bool(sums)


def _bias(node: Node, x: Node, width: int) -> Node | None:
    """The constant that a sum adds to x: a number for each column of its linear, in the same order."""
    if not is_call(node, aten.add.Tensor) or node.kwargs or shape_of(node) != shape_of(x):
        return None
    bias = next((other for other in node.args if other is not x), None)
    if not isinstance(bias, Node) or not is_constant(bias) or dtype_of(bias) != dtype_of(x):
        return None
    shape = shape_of(bias)
    while shape[:1] == (1,) and math.prod(shape_of(x)[-len(shape) :]) != width:
        shape = shape[1:]
    return bias if shape and math.prod(shape) == width and shape_of(x)[-len(shape) :] == shape else None


def _cut(product: Node) -> bool:
    x, constant = product.args
    if is_constant(x) or not is_constant(constant) or len(shape_of(constant)) < 2:
        return False
    width, part = shape_of(product)[-1], only_user(product)
    if is_call(part, aten.reshape.default) and shape_of(part)[-1:] == (width,):
        part = only_user(part)
    if is_call(part, *SPLITS_BY_SIZE):
        part = only_user(part)
    cut = None if part is None else cut_of(part, -1)
    if part is None or cut is None or shape_of(cut[0])[-1] != width or shape_of(part)[-1] == width:
        return False
    with product.graph.inserting_before(product):
        columns = [len(shape_of(constant)) - 1, cut[1], cut[1] + shape_of(part)[-1]]
        new = emit(product, product.target, x, emit(product, aten.slice.Tensor, constant, *columns))
        replace(part, emit(part, aten.reshape.default, new, list(shape_of(part))))
    return True
