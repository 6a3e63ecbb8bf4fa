"""Rows of one value side by side, as patches are merged, are looked up at once.

Before   cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)          x [batch, h, w, n]
After    reshape(look_up(x, rows), [batch, h / 2, w / 2, 4 n])

Each slice is a kernel, and rows that are not side by side are cut out as rows: their layout changes twice.
"""

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, replace, shape_of
from tt_dynamo.passes.movement import numbered, run, source_of
from tt_dynamo.passes.rewrite import argument, emit, is_constant
from tt_dynamo.passes.rows import literal, movable, rows_of


def join_rows(graph: Graph, context: Context) -> int:
    """Rewrite every such join; returns how many."""
    count = sum(map(_join, graph.find_nodes(op="call_function", target=aten.cat.default)))
    dead_code(graph)
    return count


def _join(node: Node) -> bool:
    parts, rank = node.args[0], len(shape_of(node))
    source = source_of(parts[0])
    is_one = all(part is not source and source_of(part) is source for part in parts)
    if len(parts) < 3 or not is_one or is_constant(source) or not movable(source) or len(shape_of(source)) < 2:
        return False
    if argument(node, 1, 0) % rank != rank - 1:
        return False
    known = {source: numbered(shape_of(source))}
    rows = [rows_of(run(part, known), shape_of(source)[-1]) for part in parts]
    if any(found is None for found in rows):
        return False
    with node.graph.inserting_before(node):
        found = emit(node, operators.look_up, source, literal(node, torch.stack(rows, -1)))  # type: ignore[arg-type]
        replace(node, emit(node, aten.reshape.default, found, list(shape_of(node))))
    return True
