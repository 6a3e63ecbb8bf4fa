"""A convolution of one pixel of a few joined images as the sum of a convolution of each.

Before   y = relu(convolution(cat([a, b, c], 1), w, bias))                     widths that fill no tiles
After    y = relu(convolution(a, w[:, :16], bias) + convolution(b, w[:, 16:32]) + convolution(c, w[:, 32:]))

Before   y = relu(convolution(cat([upsample_nearest2d(a), b], 1), w, bias))
After    y = relu(upsample_nearest2d(convolution(a, w[:, :64], bias)) + convolution(b, w[:, 64:]))

Images lie channels last: those whose channels fill no tiles leave their cores for a join, which untilizes and tilizes
them, and a convolution brings them back. Products of the parts stay where they are, and take less time than the moves
as long as parts are few. Where convolutions can fill the parts up to tiles, these are joined on the cores. Pixels that
are repeated are mixed before, where they are fewer, if that makes no more channels of them. What is cut apart behind
its activation stays: those are convolutions of their own.
"""

import itertools

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, only_user, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.images.moved_channels import is_dense
from tt_dynamo.passes.images.split_convolutions import ACTIVATIONS
from tt_dynamo.passes.movement import SPLITS_BY_SIZE, joined_along
from tt_dynamo.passes.rewrite import emit

NEAREST = (aten.upsample_nearest2d, aten._upsample_nearest_exact2d)
REPEATS = tuple(overload for packet in NEAREST for overload in (packet.vec, packet.default))
MOST = 3  # parts: of more, sums cost what the join does


def sum_parts(graph: Graph, context: Context) -> int:
    """Rewrite every such convolution; returns how many."""
    count = sum(map(_sum, graph.find_nodes(op="call_function", target=aten.convolution.default)))
    dead_code(graph)
    return count


def _sum(node: Node) -> bool:
    join, weight, bias, *rest = node.args
    if not is_dense(node) or shape_of(weight)[2:] != (1, 1) or any(rest[1]):
        return False
    if not is_call(join, aten.cat.default) or joined_along(join) != -3 or only_user(join) is None:
        return False
    parts = join.args[0]
    widths = [shape_of(part)[1] for part in parts]
    repeated = [{*rest[0]} == {1} and _repeated(part, shape_of(node)[1]) for part in parts]
    pays = any(width % TILE for width in widths) or any(repeated)
    if not 1 < len(parts) <= MOST or len({*parts}) < len(parts) or not pays or _is_cut(node):
        return False
    with node.graph.inserting_before(node):
        total: Node | None = None
        places = itertools.pairwise([0, *itertools.accumulate(widths)])
        for part, growing, (start, end) in zip(parts, repeated, places, strict=True):
            columns = emit(node, aten.slice.Tensor, weight, 1, start, end)
            x = part.args[0] if growing else part
            made = emit(node, node.target, x, columns, bias if total is None else None, *rest)
            made = emit(part, part.target, made, *part.args[1:], **part.kwargs) if growing else made
            total = made if total is None else emit(node, aten.add.Tensor, total, made)
        replace(node, total)
    return True


def _repeated(part: Node, outputs: int) -> bool:
    """Whether a part is an image whose pixels are repeated, of no fewer channels than are made of it."""
    return is_call(part, *REPEATS) and shape_of(part)[1] >= outputs and only_user(part) is not None


def _is_cut(node: Node) -> bool:
    """Whether channels of what a convolution gives are read apart, be it behind an activation."""
    behind = only_user(node)
    end = behind if behind is not None and is_call(behind, *ACTIVATIONS) else node
    return any(is_call(user, aten.slice.Tensor, *SPLITS_BY_SIZE) for user in end.users)
