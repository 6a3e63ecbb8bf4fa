"""Reshapes that move data sink below what works row by row, until what reads them needs no reshape.

Before   n = layer_norm(reshape(x, [1, 56, 56, 96]))         x [1, 3136, 96]
         mean(n, [1, 2]) or look_up(n, rows)
After    n = layer_norm(x)
         mean(n, [1]) or look_up(n, rows)

Rows of 56 fill no tiles, so such a reshape moves all of a value. Only where every operand is reshaped alike, or
constant.
"""

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, literal_value, only_user, replace, shape_of
from tt_dynamo.passes.movement import keeps_rows, moves_rows
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import FLOATS, argument, emit, is_constant
from tt_dynamo.passes.rows import ROWS, carry, literal


def sink_reshapes(graph: Graph, context: Context) -> int:
    """Move reshapes of rows down or away; returns past how many operations."""
    count = 0
    for node in list(graph.nodes):
        if is_call(node, *ROWS):
            count += _sink(node)
        elif is_call(node, operators.look_up):
            count += _look_up(node)
        elif is_call(node, aten.reshape.default):
            count += _look_up_in_shape(node)
        elif is_call(node, aten.mean.dim):
            count += _mean(node)
    dead_code(graph)
    if count:
        canonicalize(graph, context)  # reshapes that meet
    return count


def _is_of_rows(x: Node) -> bool:
    """Whether a value is a reshape that keeps rows."""
    return is_call(x, aten.reshape.default) and not is_constant(x) and dtype_of(x) in FLOATS and keeps_rows(x)


def _sink(node: Node) -> bool:
    operands = [x for x in node.args[: ROWS[node.target]] if isinstance(x, Node)]
    if node.kwargs or (is_call(node, aten.layer_norm.default) and len(node.args[1]) > 1):
        return False
    moved = [x for x in operands if not is_constant(x)]
    if not moved or not all(_is_of_rows(x) and moves_rows(x) and only_user(x) for x in moved):
        return False
    leading = {shape_of(x.args[0])[:-1] for x in moved}
    is_one = len({(tuple(size for size in shape[:-1] if size > 1), shape[-1]) for shape in leading}) == 1
    if not is_one or any(shape_of(x) != shape_of(node) for x in operands if is_constant(x)):
        return False
    return carry(node, min(leading, key=len))  # what has more dimensions of one is a view of it


def _look_up(node: Node) -> bool:
    x = node.args[0]
    if not _is_of_rows(x):
        return False
    node.replace_input_with(x, x.args[0])
    return True


def _look_up_in_shape(node: Node) -> bool:
    """reshape(look_up(x, rows)) → look_up(x, reshape(rows))"""
    found = node.args[0]
    is_alone = is_call(found, operators.look_up) and only_user(found) is not None
    rows = literal_value(found.args[1]) if is_alone and _is_of_rows(node) and moves_rows(node) else None
    if rows is None:
        return False
    with node.graph.inserting_before(node):
        numbers = literal(node, rows.reshape(shape_of(node)[:-1]))
        replace(node, emit(node, operators.look_up, found.args[0], numbers))
    return True


def _mean(node: Node) -> bool:
    """Means over whole rows and columns of an image whose pixels were in a line."""
    x = node.args[0]
    if not _is_of_rows(x) or argument(node, 2, False) or argument(node, 3) is not None:
        return False
    shape, source = shape_of(x), x.args[0]
    dims = sorted(dim % len(shape) for dim in node.args[1] or ())
    if shape_of(source) != (shape[0], shape[1] * shape[2], *shape[3:]) or len(shape) != 4 or dims != [1, 2]:
        return False
    with node.graph.inserting_before(node):
        replace(node, emit(node, aten.mean.dim, source, [1]))
    return True
