"""Bring a dimension that many rows are selected of to the front, by one permute.

Before   a = select(x, 2, 0);   b = select(x, 2, 1);   …                              x [batch, seq, n, width]
After    y = permute(x, [2, 0, 1, 3]);   a = select(y, 0, 0);   b = select(y, 0, 1);   …

A row within tiles is cut as a row of elements, and put into tiles of its own by a kernel more; of a first dimension
each part is whole tiles. Only where most of what is permuted is read: class tokens of images are few of many rows.
Gemma 3n gives every layer its part of such a table.
"""

from collections import defaultdict

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, replace, shape_of
from tt_dynamo.passes.movement import dim_of, start_of
from tt_dynamo.passes.rewrite import FLOATS, emit, is_constant

FEWEST = 2  # for one, the permute is as much as it saves


def lead_selects(graph: Graph, context: Context) -> int:
    """Bring every such dimension to the front; returns how many."""
    selects: dict[Node, list[Node]] = defaultdict(list)
    for select in graph.find_nodes(op="call_function", target=aten.select.int):
        x = select.args[0]
        is_of_rows = len(shape_of(x)) > 2 and dim_of(select) == len(shape_of(x)) - 2
        if is_of_rows and dtype_of(x) in FLOATS and not is_constant(x):
            selects[x].append(select)
    groups = [(x, found) for x, found in selects.items() if _are_most(x, {*map(start_of, found)})]
    for x, found in groups:
        dim = len(shape_of(x)) - 2
        with graph.inserting_before(min(found)):
            first = emit(x, aten.permute.default, x, [dim, *range(dim), dim + 1])
        for select in found:
            with graph.inserting_before(select):
                replace(select, emit(select, aten.select.int, first, 0, start_of(select)))
    dead_code(graph)
    return len(groups)


def _are_most(x: Node, starts: set[int]) -> bool:
    return len(starts) >= FEWEST and 2 * len(starts) >= shape_of(x)[-2]
