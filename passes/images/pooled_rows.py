"""Means of rows of a signal as a product with constant weights, which also picks the rows.

Before   avg_pool2d(cat([x[:, :1], x[:, :-1]], 1)[:, None], [2, 1])           x [batch, rows, width]
After    weights @ x                                                          weights [batch new rows, batch rows]

Transformers that shorten their sequence (Funnel) pool images without channels, one number wide as TTNN has them. A sum
with weights of 0 is no pick: an infinity gives NaN in its column. Long signals stay as they are.
"""

import math

import torch
import torch.nn.functional as F
from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, replace, shape_of
from tt_dynamo.passes.images.signals import MOST
from tt_dynamo.passes.origins import Origins
from tt_dynamo.passes.rewrite import FLOATS, argument, emit, is_constant
from tt_dynamo.passes.rows import literal


def pool_rows(graph: Graph, context: Context) -> int:
    """Rewrite every mean of rows; returns how many."""
    origins = Origins()
    count = sum(
        _rewrite(node, origins) for node in graph.find_nodes(op="call_function", target=aten.avg_pool2d.default)
    )
    dead_code(graph)
    return count


def _rewrite(node: Node, origins: Origins) -> bool:
    x, kernel = node.args[:2]
    if len(kernel) != 2 or kernel[1] != 1 or shape_of(node)[-1] != shape_of(x)[-1] or shape_of(node)[-3] != 1:
        return False
    if (argument(node, 2) or kernel)[-1] != 1:
        return False
    if dtype_of(x) not in FLOATS or is_constant(x) or (argument(node, 3, [0]) or [0])[-1]:
        return False
    origin = origins.of(x)
    first = None if origin is None else origin.first_of_rows()
    if origin is None or first is None or not origin.has_literals(0.0):
        return False
    width, rows = shape_of(x)[-1], shape_of(x)[-2]
    count = math.prod(shape_of(origin.source)) // width
    if bool((first[first >= 0] % width).any()):  # rows that begin within a row of the source
        return False
    if shape_of(origin.source)[-1] != width or math.prod(shape_of(node)[:-1]) * count > MOST:
        return False
    picks = ((first.reshape(-1, rows, 1) // width) == torch.arange(count)) & (first.reshape(-1, rows, 1) >= 0)
    means = F.avg_pool2d(torch.eye(rows)[None], *node.args[1:], **node.kwargs)[0]
    weights = (means @ picks.float()).reshape(-1, count).to(dtype_of(x))
    with node.graph.inserting_before(node):
        flat = emit(node, aten.reshape.default, origin.source, [count, width])
        pooled = emit(node, aten.matmul.default, literal(node, weights), flat)
        replace(node, emit(node, aten.reshape.default, pooled, list(shape_of(node))))
    return True
