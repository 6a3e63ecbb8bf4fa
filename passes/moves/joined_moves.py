"""Reshapes and permutes in a row as one permute, or as none.

Before   t = permute(reshape(permute(reshape(x, [n, h, w, c]), NCHW), [n, c, h w]), [0, 2, 1])     tokens of an image
After    t = reshape(x, [n, h w, c])

A run of them is read as where each factor of the sizes comes from: factors that stay side by side are one, and what
is left says the fewest dimensions that one permute has to know. A run is replaced where that saves a permute, or
dimensions beyond the four that TTNN moves as they are: an einsum permutes five and more, most of them of one.
"""

import math

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, replace, shape_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import emit

# Of one dimension of a value: a size, and how many elements of the source lie between two neighbours along it.
Factor = tuple[int, int]

FLAT = 4  # dimensions


def join_moves(graph: Graph, context: Context) -> int:
    """Replace runs of reshapes and permutes by fewer permutes; returns how many."""
    joined = sum(_join(node) for node in list(graph.nodes))
    dead_code(graph)
    if joined:
        canonicalize(graph, context)  # reshapes that meet
    return joined


def _join(node: Node) -> bool:
    if not is_call(node, aten.reshape.default, aten.permute.default) or not node.meta["val"].numel():
        return False
    run = [node]
    while is_call(run[-1].args[0], aten.reshape.default, aten.permute.default):
        run.append(run[-1].args[0])
    permutes = [move for move in run if is_call(move, aten.permute.default)]
    source = run[-1].args[0]
    factors = _factors_of(run[::-1]) if permutes else None
    if factors is None:
        return False
    is_flatter = len(factors) <= FLAT < max(len(shape_of(move)) for move in permutes)
    if (len(factors) > 1) >= len(permutes) and not is_flatter:
        return False
    with node.graph.inserting_before(node):
        moved = source if len(factors) < 2 else _permuted(node, source, factors)
        replace(node, emit(node, aten.reshape.default, moved, list(shape_of(node))))
    return True


def _permuted(node: Node, source: Node, factors: list[Factor]) -> Node:
    """The source with its factors in this order, by one permute."""
    order = sorted(range(len(factors)), key=lambda place: -factors[place][1])
    sizes = [factors[place][0] for place in order]
    split = source if [*shape_of(source)] == sizes else emit(node, aten.reshape.default, source, sizes)
    return emit(node, aten.permute.default, split, [order.index(place) for place in range(len(factors))])


def _factors_of(run: list[Node]) -> list[Factor] | None:
    """The factors of the run's result in their order, as few as there can be; None where one is of two dimensions."""
    shape = shape_of(run[0].args[0])
    dims: list[list[Factor]] = [[(size, math.prod(shape[dim + 1 :]))] for dim, size in enumerate(shape)]
    for move in run:
        if is_call(move, aten.permute.default):
            dims = [dims[dim] for dim in move.args[1]]
        elif (split := _split([factor for dim in dims for factor in dim], shape_of(move))) is not None:
            dims = split
        else:
            return None
    found: list[Factor] = []
    for size, step in (factor for dim in dims for factor in dim if factor[0] > 1):
        if found and found[-1][1] == size * step:
            found[-1] = found[-1][0] * size, step
        else:
            found.append((size, step))
    return found


def _split(factors: list[Factor], shape: tuple[int, ...]) -> list[list[Factor]] | None:
    """The factors of each dimension of a reshape's result."""
    left = [factor for factor in reversed(factors) if factor[0] > 1]
    dims: list[list[Factor]] = []
    for wanted in shape:
        dims.append([])
        while wanted > 1:
            size, step = left.pop()
            part = math.gcd(size, wanted)
            if part not in (size, wanted):
                return None
            if part < size:
                left.append((size // part, step))
            dims[-1].append((part, step * (size // part)))
            wanted //= part
    return dims
