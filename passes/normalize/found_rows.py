"""Places that the device itself found among others are in bounds where they index as many: nothing is to be checked.

Before   i = argmax(distances, -1);   z = embedding(codebook, i)             gather(x, -1, topk(x, k)[1])
After    i = argmax(distances, -1);   z = embedding(codebook, found(i))      gather(x, -1, found(topk(x, k)[1]))

So a codec's nearest codes look up their vectors without a way over the host. Every other index that the device computes
is checked there, or read by eager torch.
"""

import math
import operator

from torch.fx import Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, dtype_of, is_call, shape_of
from tt_dynamo.passes.movement import is_move
from tt_dynamo.passes.normalize.canonicalize import RESHAPES
from tt_dynamo.passes.normalize.rankings import RANKINGS
from tt_dynamo.passes.rewrite import arguments, emit

PLACES = (aten.argmax.default, aten.argmin.default)
WITH_VALUES = (aten.max.dim, aten.min.dim, *RANKINGS)
ALONGSIDE = (*RESHAPES, aten.transpose.int, aten.expand.default, aten.alias.default, aten.detach.default)


def as_found(node: Node, index: Node, size: int) -> Node | None:
    """`index` for an operation on the device, whose numbers are places among at most `size`; None where they are not.

    The call stands at the graph's insertion point, with the source facts of `node`.
    """
    count = _count_of(index)
    return emit(node, operators.found, index) if count is not None and count <= size else None


def _count_of(index: Node) -> int | None:
    """Among how many elements an index was found."""
    while is_call(index, *ALONGSIDE) or (is_move(index) and not is_call(index, operator.getitem)) or _is_cast(index):
        index = index.args[0]
    if is_call(index, *PLACES):
        found = index
    elif is_call(index, operator.getitem) and index.args[1] == 1 and is_call(index.args[0], *WITH_VALUES):
        found = index.args[0]
    else:
        return None
    x, dim = found.args[0], arguments(found)["dim"]
    if not dtype_of(x).is_floating_point:
        return None  # they are ranked on the host
    return math.prod(shape_of(x)) if dim is None or not shape_of(x) else shape_of(x)[dim]


def _is_cast(index: Node) -> bool:
    """A cast of integers to integers, which holds every place."""
    return is_call(index, aten._to_copy.default) and not (
        dtype_of(index).is_floating_point or dtype_of(index.args[0]).is_floating_point
    )
