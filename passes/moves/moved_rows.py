"""Rows that change their tiles are looked up: one kernel reads them as rows and writes tiles.

Before   y = reshape(permute(reshape(x, [16, 2, 16, 2, c]), [1, 3, 0, 2, 4]), [4, 256, c])          x [1, 1, 1024, c]
After    y = look_up(x, rows)                                                                       rows [4, 256]

As MobileViT has every second pixel in one sequence. In tiles each of these moves reads and writes all of the value, of
which the parts of two rows fill a tile each; rows that the host has, or that lie as rows for a convolution of volumes,
move as they are.
"""

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.movement import moves_leading, moves_rows, numbered, run
from tt_dynamo.passes.rewrite import FLOATS, emit, is_constant
from tt_dynamo.passes.rows import literal, rows_of

LIMIT = 1 << 22  # elements, of which each is numbered


def look_up_moved_rows(graph: Graph, context: Context) -> int:
    """Rewrite every chain of such moves, permutes among them; returns how many."""
    count = sum(_rewrite(node) for node in list(graph.nodes) if _moves_rows_only(node))
    dead_code(graph)
    return count


def _moves_rows_only(node: Node) -> bool:
    return is_call(node, aten.reshape.default, aten.permute.default) and moves_leading(node)


def _rewrite(node: Node) -> bool:
    if not node.users or any(map(_moves_rows_only, node.users)):
        return False
    chain = [node]
    while _moves_rows_only(chain[-1].args[0]) and only_user(chain[-1].args[0]) is not None:
        chain.append(chain[-1].args[0])
    source = chain[-1].args[0]
    permutes = sum(is_call(move, aten.permute.default) for move in chain)
    launches = permutes + sum(is_call(move, aten.reshape.default) and moves_rows(move) for move in chain)
    if not permutes or launches - permutes < 1 or not _is_in_tiles(source, node):
        return False
    rows = rows_of(run(node, {source: numbered(shape_of(source))}), shape_of(source)[-1])
    if rows is None:
        return False
    with node.graph.inserting_before(node):
        replace(node, emit(node, operators.look_up, source, literal(node, rows)))
    return True


def _is_in_tiles(source: Node, node: Node) -> bool:
    """Whether the device computes a value in tiles, and what reads it where it was moved takes it in tiles."""
    value, readers = source.meta.get("val"), (operators.conv3d, operators.look_up)
    is_computed = source.op == "call_function" and not is_constant(source) and not is_call(source, *readers[:1])
    # Rows narrower than a tile may be positions, which stay in float32 as long as moves alone carry them.
    fits = is_computed and dtype_of(source) in FLOATS and value.numel() <= LIMIT and shape_of(source)[-1] >= TILE
    return fits and not any(is_call(user, *readers) for user in node.users)
