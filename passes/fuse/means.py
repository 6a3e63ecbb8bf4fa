"""The mean of some rows as a product with a row of weights, so that nothing is cut out.

Before   mean(x[:, 1:], [1])                                     x [batch, tokens, width], as behind a class token
After    [[0, 1 / n, …, 1 / n]] @ x

A sum with weights of 0 is no pick: an infinity in a row that is left out gives NaN. Whole tiles are cut as before.
"""

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.movement import cut_of
from tt_dynamo.passes.rewrite import FLOATS, argument, emit, is_constant
from tt_dynamo.passes.rows import literal


def means_of_rows(graph: Graph, context: Context) -> int:
    """Rewrite the means of rows that begin inside a tile; returns how many."""
    count = sum(map(_rewrite, graph.find_nodes(op="call_function", target=aten.mean.dim)))
    dead_code(graph)
    return count


def _rewrite(node: Node) -> bool:
    cut, dims, keeps = node.args[0], node.args[1] or (), argument(node, 2, False)
    if not is_call(cut, aten.slice.Tensor) or is_constant(cut) or only_user(cut) is None:
        return False
    x, rank = cut.args[0], len(shape_of(cut))
    if rank != 3 or [dim % rank for dim in dims] != [1] or argument(node, 3) is not None or dtype_of(x) not in FLOATS:
        return False
    _, start = cut_of(cut, -2) or (x, 0)
    if start % TILE == 0:
        return False
    weights, count = torch.zeros(shape_of(x)[0], 1, shape_of(x)[1], dtype=dtype_of(x)), shape_of(cut)[1]
    weights[..., start : start + count] = 1 / count
    with node.graph.inserting_before(node):
        mean = emit(node, aten.matmul.default, literal(x, weights), x)
        replace(node, mean if keeps else emit(node, aten.reshape.default, mean, list(shape_of(node))))
    return True
