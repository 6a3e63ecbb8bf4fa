"""Learned tokens beside the patches of an image are rows of zeros among them, so that nothing joins on the device.

Before   y = cat([token, linear(x, w, b)], 1) + p                         x patches of an input, gathered on the host
After    y = linear(pad(x), w) + (cat([token, b, …]) + p)                 with constants behind the product

Any nesting of sums with constants, slices and joins along the tokens counts, as of registers that stand behind the
class token, where the patches stay side by side and in order.
"""

import dataclasses

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, is_parameter, replace, shape_of
from tt_dynamo.passes.rewrite import argument, emit, is_constant

MOVES = (aten.reshape.default, aten.permute.default, aten.slice.Tensor, aten._to_copy.default)
# Of a row that is no patch.
NONE = -1


@dataclasses.dataclass(frozen=True)
class Rows:
    """Tokens [batch, rows, width] as which patch each is, or none, plus a constant [1, rows, width].

    read: the nodes that make them of the patches, which nothing else may read. linear: None where all are constants.
    """

    patches: list[int]
    table: Node
    linear: Node | None = None
    read: frozenset[Node] = frozenset()


def tokens_among_patches(graph: Graph, context: Context) -> int:
    """Rewrite every join of patches with constants; returns how many."""
    joined = 0
    for node in reversed(list(graph.nodes)):
        is_join = node.users and is_call(node, aten.add.Tensor, aten.cat.default) and not is_constant(node)
        if is_join and _rewrite(node):
            dead_code(graph)  # those within are joined no more
            joined += 1
    dead_code(graph)  # the tables of what came to nothing
    return joined


def _rewrite(node: Node) -> bool:
    with node.graph.inserting_before(node):
        rows = _rows(node) if len(shape_of(node)) == 3 else None
        if rows is None or rows.linear is None or not _is_padded(rows.patches) or not _is_read_alone(rows, node):
            return False
        x, weight = rows.linear.args[:2]
        before = rows.patches.index(0)
        padding = [0, 0, before, len(rows.patches) - before - shape_of(x)[1]]
        patches = emit(x, aten.constant_pad_nd.default, x, padding)
        y = emit(rows.linear, operators.linear, patches, weight)
        replace(node, emit(node, aten.add.Tensor, y, rows.table))
    return True


def _is_padded(patches: list[int]) -> bool:
    """Whether the patches are side by side in order, all of them, beside some that are none."""
    kept = [patch for patch in patches if patch != NONE]
    first = patches.index(kept[0])
    return len(kept) < len(patches) and kept == patches[first : first + len(kept)] == [*range(len(kept))]


def _is_read_alone(rows: Rows, root: Node) -> bool:
    return all(user in rows.read for value in rows.read - {root} for user in value.users)


def _rows(node: Node) -> Rows | None:
    """The tokens of a value; None where it is more than a join of constants and patches with constants."""
    if is_constant(node):
        base = node.args[0] if is_call(node, aten.expand.default) else node
        shape = shape_of(base)
        return Rows([NONE] * shape[1], base) if len(shape) == 3 and shape[0] == 1 else None
    found: Rows | None = None
    if is_call(node, operators.linear):
        found = _patches(node)
    elif is_call(node, aten.add.Tensor) and not node.kwargs and all(isinstance(x, Node) for x in node.args):
        found = _sum(node)
    elif is_call(node, aten.slice.Tensor) and argument(node, 1, 0) == 1 and argument(node, 4, 1) == 1:
        found = _slice(node)
    elif is_call(node, aten.cat.default) and argument(node, 1, 0) in (1, -2):
        found = _join(node)
    return found and dataclasses.replace(found, read=found.read | {node})


def _patches(linear: Node) -> Rows | None:
    x, _, *rest = linear.args
    bias, activation = (*rest, None, "")[:2] if len(rest) < 2 else rest[:2]
    if len(shape_of(linear)) != 3 or activation or linear.kwargs or bias is None or not _comes_from_outside(x):
        return None
    _, count, width = shape_of(linear)
    return Rows([*range(count)], emit(linear, aten.expand.default, bias, [1, count, width]), linear)


def _comes_from_outside(x: Node) -> bool:
    """Whether the host has the patches before anything is computed."""
    while is_call(x, operators.gather_patches, operators.fold_patches, *MOVES):
        x = x.args[0]
    return x.op == "placeholder" and not is_parameter(x)


def _sum(node: Node) -> Rows | None:
    x, constant = node.args if is_constant(node.args[1]) else node.args[::-1]
    shape = shape_of(constant)
    rows = _rows(x) if is_constant(constant) and (len(shape) < 3 or shape[0] == 1) else None
    return rows and dataclasses.replace(rows, table=emit(node, aten.add.Tensor, rows.table, constant))


def _slice(node: Node) -> Rows | None:
    rows = _rows(node.args[0])
    if rows is None:
        return None
    part = slice(argument(node, 2), argument(node, 3))
    table = emit(node, aten.slice.Tensor, rows.table, 1, part.start, part.stop)
    return dataclasses.replace(rows, patches=rows.patches[part], table=table)


def _join(node: Node) -> Rows | None:
    parts = [_rows(part) for part in node.args[0]]
    known = [part for part in parts if part is not None]
    linears = {part.linear for part in known} - {None}
    if len(known) < len(parts) or len(linears) != 1 or len({dtype_of(part) for part in node.args[0]}) > 1:
        return None
    return Rows(
        [patch for part in known for patch in part.patches],
        emit(node, aten.cat.default, [part.table for part in known], 1),
        linears.pop(),
        frozenset().union(*(part.read for part in known)),
    )
