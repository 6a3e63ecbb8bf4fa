"""Sorting and the places of extremes: ATen node → TTNN calls.

Values are sorted as float32: TTNN's bfloat16 network reads NaN as infinity. Equal values stay in order, as eager
torch leaves them; without that, elements of the padding could come among infinities. Integers stay on the host.
"""

from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering.data_movement import in_layout, permute
from tt_dynamo.lowering.reduction import amax, amin
from tt_dynamo.lowering.registry import TTNN, Need, Tensor, lower


def _ranked(ttnn: TTNN, name, x: Tensor, *args, **options):
    """The elements in another order, and the place that each of them had."""
    if not x.shape:
        raise Unsupported("a single number has no order")
    values, places = getattr(ttnn, name)(ttnn.typecast(x, ttnn.float32), *args, **options, stable=True)
    return ttnn.typecast(values, ttnn.bfloat16), ttnn.typecast(places, ttnn.int32)


@lower(aten.sort.default, aten.sort.stable, floats=True)
def sort(ttnn: TTNN, x: Tensor, dim=-1, descending=False, *, stable=None):
    """The elements in order along `dim`, equal ones as they were, and where each of them was."""
    return _ranked(ttnn, "sort", x, dim=dim, descending=descending)


@lower(aten.topk.default, floats=True)
def topk(ttnn: TTNN, x: Tensor, k, dim=-1, largest=True, sorted=True):
    """The k largest or smallest elements along `dim`, in order, and where each of them was."""
    return _ranked(ttnn, "topk", x, k, dim, largest, True)


@lower(aten.argmax.default, gives="ROW_MAJOR", self=Need("ROW_MAJOR"))
def argmax(ttnn: TTNN, x: Tensor, dim=None, keepdim=False):
    """Where the first of the largest elements along `dim` is, or among all.

    Only along the last dimension of ROW_MAJOR does TTNN's kernel take NaN for the largest, as torch does.
    """
    rank = len(x.shape)
    if dim is None or not rank:
        return ttnn.typecast(ttnn.argmax(x, dim=None, keepdim=keepdim), ttnn.int32)
    dim %= rank
    if dim != rank - 1:
        x = permute(ttnn, x, (*(d for d in range(rank) if d != dim), dim))
    indices = ttnn.typecast(ttnn.argmax(x, dim=-1, keepdim=False), ttnn.int32)
    return ttnn.reshape(indices, (*x.shape[:dim], 1, *x.shape[dim:-1])) if keepdim else indices


@lower(aten.argmin.default, gives="ROW_MAJOR", floats=True)
def argmin(ttnn: TTNN, x: Tensor, dim=None, keepdim=False):
    """Where the first of the smallest elements along `dim` is, or among all."""
    return argmax(ttnn, in_layout(ttnn, ttnn.neg(x), ttnn.ROW_MAJOR_LAYOUT), dim, keepdim)


@lower(aten.max.dim)
def max_along(ttnn: TTNN, x: Tensor, dim, keepdim=False):
    """The largest element along `dim`, and where the first such is."""
    indices = argmax(ttnn, in_layout(ttnn, x, ttnn.ROW_MAJOR_LAYOUT), dim, keepdim)
    return amax(ttnn, x, dim, keepdim), in_layout(ttnn, indices, ttnn.TILE_LAYOUT)


@lower(aten.min.dim)
def min_along(ttnn: TTNN, x: Tensor, dim, keepdim=False):
    """The smallest element along `dim`, and where the first such is."""
    return amin(ttnn, x, dim, keepdim), in_layout(ttnn, argmin(ttnn, x, dim, keepdim), ttnn.TILE_LAYOUT)
