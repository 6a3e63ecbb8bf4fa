"""Bags of embeddings become lookups and what adds them up.

Before   y = _embedding_bag(table, ids, offsets)[0]           bags of one known size
After    y = bag_weights(ids, offsets) @ embedding(ids)       y = embedding(ids).view(bags, size, width).sum(1)

Which id belongs to which bag is a matrix of ones, made on the host by eager torch itself, which checks the offsets; a
mean has the reciprocal of the bag's size in their place. Only where nothing reads what training keeps beside.
"""

import operator

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dtype_of, is_call, literal_value, shape_of
from tt_dynamo.passes.rewrite import Rules, argument, as_dtype, emit
from tt_dynamo.passes.rows import movable

BAGS = (aten._embedding_bag.default, aten._embedding_bag_forward_only.default)
REDUCTIONS = (aten.sum.dim_IntList, aten.mean.dim, aten.amax.default)  # by the number of the mode
SUM, MEAN, MAX = range(3)
LARGEST = 1 << 20  # elements of a matrix of weights: a larger one costs more to bring up than the bags to add

RULES = Rules()


def embedding_bags_to_lookups(graph: Graph, context: Context) -> int:
    """Replace each such bag; returns how many."""
    return RULES.apply(graph, leave=constant_nodes)


@RULES.on(operator.getitem)
def _embedding_bag(node: Node) -> Node | None:
    bag, place = node.args
    if place != 0 or not is_call(bag, *BAGS) or any(user.args[1] != 0 and user.users for user in bag.users):
        return None
    table, ids, offsets = bag.args[:3]
    mode, scales, includes_last, padding = (argument(bag, *given) for given in ((4, SUM), (6,), (7, False), (8, -1)))
    bags, width = shape_of(node)
    (count,) = shape_of(ids)
    if not movable(node) or not count:
        return None
    is_even = padding < 0 and _is_even(offsets, count, bags)
    if not is_even and (mode == MAX or bags * count > LARGEST):
        return None
    rows = emit(node, aten.embedding.default, table, ids)
    if scales is not None:
        rows = emit(node, aten.mul.Tensor, rows, emit(node, aten.unsqueeze.default, scales, 1))
    if is_even:
        return emit(node, REDUCTIONS[mode], emit(node, aten.reshape.default, rows, [bags, count // bags, width]), [1])
    weights = emit(node, operators.bag_weights, ids, offsets, mode == MEAN, bool(includes_last), padding)
    return emit(node, aten.mm.default, as_dtype(weights, dtype_of(node), node), rows)


def _is_even(offsets: Node, count: int, bags: int) -> bool:
    """Whether it is known that all bags are of one size."""
    starts, size = literal_value(offsets), count // bags
    if starts is None or size * bags != count:
        return False
    return starts.tolist() == [*range(0, count + size, size)][: len(starts)]
