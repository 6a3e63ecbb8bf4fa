"""Sums and means over the rows of what lies channels last, in place of sums over columns of what is permuted for them.

Before   sum(permute(x, [0, 2, 1]) * w, [2])                           x [batch, rows, channels], w [1, 1, rows]
After    sum(x * permute(w, [0, 2, 1]), [1])

A reduction over rows leaves a line of channels, which is what a linear reads; one over columns leaves a column, with a
number a tile. What is computed between a permute and the reduction follows, as in `passes/moves/permutes.py`, where no
more permutes are left.
"""

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, replace, shape_of
from tt_dynamo.passes.moves.permutes import Operand, Region
from tt_dynamo.passes.rewrite import argument, emit, is_constant

REDUCTIONS = (aten.sum.dim_IntList, aten.mean.dim)


def reduce_rows(graph: Graph, context: Context) -> int:
    """Rewrite every such reduction; returns how many."""
    nodes = [node for target in REDUCTIONS for node in graph.find_nodes(op="call_function", target=target)]
    count = sum(map(_rewrite, nodes))
    dead_code(graph)
    return count


def _rewrite(node: Node) -> bool:
    x, rank = node.args[0], len(shape_of(node.args[0]))
    if rank < 2:
        return False
    reduced = {dim % rank for dim in node.args[1] or ()}
    kept = [dim for dim in range(rank) if dim not in reduced]
    if is_constant(x) or rank - 1 not in reduced or not kept:
        return False
    order = (*kept[:-1], *sorted(reduced), kept[-1])
    region = Region(node)
    region.add(x, order)
    # The reduction itself is no permute, unlike the roots that regions count: where -1 are more, what else reads the
    # permute keeps it, unless that is reduced as well.
    others = {user for value, _ in region.leaves for user in value.users} - {node, *region.orders}
    most = -1 if all(is_call(user, *REDUCTIONS) for user in others) else -2
    if not region.is_of_one_order or not region.frees_a_permute() or region.permutes() > most:
        return False
    new = region.rewrite(Operand(x, shape_of(x)), order)
    dims = [order.index(dim) for dim in sorted(reduced)]
    with node.graph.inserting_before(node):
        options = {} if (dtype := argument(node, 3)) is None else {"dtype": dtype}
        made = emit(node, node.target, new, dims, True, **options)
        replace(node, emit(node, aten.reshape.default, made, list(shape_of(node))))
    return True
