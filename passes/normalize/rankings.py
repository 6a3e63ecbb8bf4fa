"""Elements at the places that a ranking gave: the only computed indices that need no check against their bounds.

Before   values, places = topk(x, k);   y = gather(z, 1, places)          z = scatter(y, 1, places, values)
After    values, places = topk(x, k);   y = gather_ranked(z, 1, places)   z = scatter_ranked(y, 1, places, values)

Only where the ranked dimension is no longer than the indexed one: each place is one of it. Routers of experts do so.
"""

import operator

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, is_call, shape_of
from tt_dynamo.passes.rewrite import Rules, arguments, emit

RANKINGS = (aten.topk.default, aten.sort.default, aten.sort.stable)
RULES = Rules()


def places_below(index: Node) -> dict[int, int]:
    """For the dimension along which a ranking gave `index`: the size that it is less than; empty where none did."""
    if not is_call(index, operator.getitem) or index.args[1] != 1 or not is_call(index.args[0], *RANKINGS):
        return {}
    ranking = index.args[0]
    shape = shape_of(ranking.args[0])
    dim = arguments(ranking)["dim"]
    return {dim % len(shape): shape[dim]} if shape else {}


def _is_in_bounds(x: Node, dim: int, index: Node) -> bool:
    shape = shape_of(x)
    return any(below <= shape[dim] for at, below in places_below(index).items() if at == dim % len(shape))


@RULES.on(aten.gather.default)
def _gather(node: Node) -> Node | None:
    x, dim, index = node.args[:3]
    return emit(node, operators.gather_ranked, x, dim, index) if _is_in_bounds(x, dim, index) else None


@RULES.on(aten.scatter.src, aten.scatter.value)
def _scatter(node: Node) -> Node | None:
    x, dim, index, values = node.args
    if not _is_in_bounds(x, dim, index):
        return None
    if node.target is aten.scatter.value:
        like = {"dtype": x.meta["val"].dtype, "device": x.meta["val"].device}
        values = emit(node, aten.full.default, list(shape_of(index)), values, **like)
    elif shape_of(values) != shape_of(index):
        return None
    return emit(node, operators.scatter_ranked, x, dim, index, values)


def index_by_rankings(graph: Graph, context: Context) -> int:
    """Replace each such read and write; returns how many."""
    return RULES.apply(graph)
