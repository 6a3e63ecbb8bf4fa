"""Rows and elements by number: fused or ATen node → TTNN calls.

Nothing on the device checks a number: those that arrive here are constants, or were checked on the host as eager torch
checks them (`bounded`, `index_numbers`).
"""

from __future__ import annotations

import math

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering.registry import Need, lower

NUMBERS = Need("ROW_MAJOR", "uint32")
REDUCTIONS = {"add": "add", "sum": "add", "multiply": "multiply", "prod": "multiply"}


def _require(ttnn, index, *values):
    """Numbers that came up from the host, and floats: TTNN looks up no others."""
    if index.dtype != ttnn.uint32:
        raise Unsupported("an index that the device computes is not checked against its bounds")
    if any(x.dtype != ttnn.bfloat16 for x in values):
        raise Unsupported("picking integers stays on the host")


@lower(operators.look_up, x=Need("ROW_MAJOR"), rows=NUMBERS)
def look_up(ttnn, x, rows):
    """Rows of x [..., width], numbered through its leading dimensions, at rows [...] → [*rows.shape, width]."""
    _require(ttnn, rows, x)
    width, shape = x.shape[-1], rows.shape
    if len(x.shape) != 2:
        x = ttnn.reshape(x, (math.prod(x.shape[:-1]), width))
    if len(shape) != 2:  # whole rows of numbers, so that the result needs no moving in its tiles
        rows = ttnn.reshape(rows, (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1))
    found = ttnn.embedding(rows, x, layout=ttnn.TILE_LAYOUT)
    return ttnn.reshape(found, (*shape, width)) if len(shape) != 2 else found


@lower(operators.pick, gives="ROW_MAJOR", x=Need("ROW_MAJOR"), places=NUMBERS)
def pick(ttnn, x, places):
    """Elements of x, numbered through all its dimensions, at places [...] → [*places.shape]."""
    _require(ttnn, places, x)
    line = ttnn.reshape(x, (1, math.prod(x.shape)))
    found = ttnn.gather(line, 1, ttnn.reshape(places, (1, math.prod(places.shape))))
    return ttnn.reshape(found, places.shape)


@lower(aten.gather.default, gives="ROW_MAJOR", self=Need("ROW_MAJOR"), index=NUMBERS)
def gather(ttnn, x, dim, index, sparse_grad=False):
    """x at the positions `index` along `dim`; index is no larger than x in the other dimensions."""
    _require(ttnn, index, x)
    if len(x.shape) > 1:
        return ttnn.gather(x, dim, index)
    found = ttnn.gather(ttnn.reshape(x, (1, *x.shape)), 1, ttnn.reshape(index, (1, *index.shape)))
    return ttnn.reshape(found, index.shape)


def _scatter(ttnn, x, dim, index, src, reduce=None):
    _require(ttnn, index, x, src)
    if reduce is None:
        return ttnn.scatter(x, dim % len(x.shape), index, src)
    return ttnn.scatter(x, dim % len(x.shape), index, src, reduce=REDUCTIONS[reduce])


@lower(aten.scatter.src, gives="ROW_MAJOR", self=Need("ROW_MAJOR"), index=NUMBERS, src=Need("ROW_MAJOR"))
def scatter(ttnn, x, dim, index, src):
    """x with the elements of src written to the positions `index` along `dim`."""
    return _scatter(ttnn, x, dim, index, src)


@lower(aten.scatter_add.default, gives="ROW_MAJOR", self=Need("ROW_MAJOR"), index=NUMBERS, src=Need("ROW_MAJOR"))
def scatter_add(ttnn, x, dim, index, src):
    """x with the elements of src added at the positions `index` along `dim`, in float32."""
    return _scatter(ttnn, x, dim, index, src, "add")


@lower(aten.scatter.reduce, gives="ROW_MAJOR", self=Need("ROW_MAJOR"), index=NUMBERS, src=Need("ROW_MAJOR"))
def scatter_reduced(ttnn, x, dim, index, src, *, reduce):
    """x with the elements of src added or multiplied at the positions `index` along `dim`."""
    return _scatter(ttnn, x, dim, index, src, reduce)


@lower(aten.scatter_reduce.two, gives="ROW_MAJOR", self=Need("ROW_MAJOR"), index=NUMBERS, src=Need("ROW_MAJOR"))
def scatter_reduce(ttnn, x, dim, index, src, reduce, *, include_self=True):
    """The same for sums and products that begin with what x holds."""
    if reduce not in REDUCTIONS or not include_self:
        raise Unsupported(f"TTNN has no scatter with reduce={reduce!r}, include_self={include_self}")
    return _scatter(ttnn, x, dim, index, src, reduce)


@lower(aten.embedding.default, weight=Need("ROW_MAJOR"), indices=Need("ROW_MAJOR", "uint32"))
def embedding(ttnn, weight, indices, padding_idx=-1, scale_grad_by_freq=False, sparse=False):
    """weight [rows, width] at indices [...] → [..., width]. A tiled table would be untilized at every call."""
    shape = indices.shape
    if len(shape) != 2:
        indices = ttnn.reshape(indices, (1, math.prod(shape)))
    out = ttnn.embedding(indices, weight, layout=ttnn.TILE_LAYOUT)
    return ttnn.reshape(out, (*shape, weight.shape[-1])) if len(shape) != 2 else out
