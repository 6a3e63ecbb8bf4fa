"""Cut what was joined along another dimension before it is joined, where that takes no cut at all.

Before   heads = [cat([boxes, scores], 1).view(n, 144, -1) for … in levels];   b, s = cat(heads, 2).split((64, 80), 1)
After    b = cat([boxes.view(n, 64, -1) for … in levels], 2);   s = cat([scores.view(n, 80, -1) for … in levels], 2)

Detectors join what they predict of every level, and take it apart again behind the last join.
"""

from operator import getitem

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, replace, shape_of
from tt_dynamo.passes.movement import cut_of, joined_along, part_of_join
from tt_dynamo.passes.rewrite import emit


def cut_before_joins(graph: Graph, context: Context) -> int:
    """Replace every such cut; returns how many."""
    cuts = sum(_cut(node) for node in list(graph.nodes) if node.users and is_call(node, aten.slice.Tensor, getitem))
    dead_code(graph)
    return cuts


def _cut(node: Node) -> bool:
    shape = shape_of(node) if isinstance(node.meta["val"], torch.Tensor) else ()
    for dim, size in enumerate(shape):
        cut = cut_of(node, dim - len(shape))
        if cut is None or not is_call(cut[0], aten.cat.default) or joined_along(cut[0]) == dim - len(shape):
            continue
        with node.graph.inserting_before(node):
            new = _part(node, cut[0], dim, cut[1], cut[1] + size)
        if new is not None and dtype_of(new) == dtype_of(node):
            replace(node, new)
            return True
    return False


def _part(like: Node, x: Node, dim: int, start: int, stop: int) -> Node | None:
    """x from start to stop along a dimension, without a cut; None where it takes one."""
    shape = shape_of(x)
    if (start, stop) == (0, shape[dim]):
        return x
    if is_call(x, aten.reshape.default):
        source = x.args[0]
        if shape_of(source)[: dim + 1] != shape[: dim + 1]:
            return None
        part = _part(like, source, dim, start, stop)
        return part and emit(like, aten.reshape.default, part, [*shape[:dim], stop - start, *shape[dim + 1 :]])
    if not is_call(x, aten.cat.default) or any(len(shape_of(part)) != len(shape) for part in x.args[0]):
        return None
    if joined_along(x) != dim - len(shape):
        parts = [_part(like, part, dim, start, stop) for part in x.args[0]]
        return None if None in parts else emit(like, aten.cat.default, parts, joined_along(x))
    return part_of_join(x, start, stop)
