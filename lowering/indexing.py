"""Rows and elements by number: fused or ATen node → TTNN calls.

Nothing on the device checks a number: those that arrive here are constants, or were checked on the host as eager torch
checks them (`bounded`, `index_numbers`), or are places among as many that the device found itself (`found`).
"""

import math

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering.registry import TTNN, Need, Tensor, lower

ROWS = Need("ROW_MAJOR")
NUMBERS = Need("ROW_MAJOR", "uint32")
SCATTERS = (aten.scatter.src, aten.scatter.reduce, aten.scatter_reduce.two)
REDUCTIONS = {"add": "add", "sum": "add", "multiply": "multiply", "prod": "multiply"}


def _require(ttnn: TTNN, index: Tensor, *values):
    """Numbers that came up from the host or that the device found, and floats: TTNN looks up no others."""
    if index.dtype != ttnn.uint32:
        raise Unsupported("an index that the device computes is not checked against its bounds")
    if any(x.dtype != ttnn.bfloat16 for x in values):
        raise Unsupported("picking integers stays on the host")


@lower(operators.found, gives="ROW_MAJOR", index=Need("ROW_MAJOR"))
def found(ttnn: TTNN, index: Tensor):
    """Places that the device found, as numbers that it looks up."""
    return ttnn.typecast(index, ttnn.uint32)


@lower(aten.embedding.default, weight=ROWS, indices=NUMBERS)
def embedding(ttnn: TTNN, weight, indices: Tensor, padding_idx=-1, scale_grad_by_freq=False, sparse=False):
    """weight [rows, width] at indices [...] → [..., width]. A tiled table would be untilized at every call."""
    width, shape = weight.shape[-1], indices.shape
    if len(shape) == 2:
        return ttnn.embedding(indices, weight, layout=ttnn.TILE_LAYOUT)
    # Whole rows of numbers, so that the result needs no moving in its tiles.
    indices = ttnn.reshape(indices, (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1))
    return ttnn.reshape(ttnn.embedding(indices, weight, layout=ttnn.TILE_LAYOUT), (*shape, width))


@lower(operators.look_up, x=ROWS, rows=NUMBERS)
def look_up(ttnn: TTNN, x: Tensor, rows):
    """Rows of x [..., width], numbered through its leading dimensions, at rows [...] → [*rows.shape, width]."""
    _require(ttnn, rows, x)
    table = x if len(x.shape) == 2 else ttnn.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
    return embedding(ttnn, table, rows)


@lower(operators.pick, gives="ROW_MAJOR", x=ROWS, places=NUMBERS)
def pick(ttnn: TTNN, x: Tensor, places: Tensor):
    """Elements of x, numbered through all its dimensions, at places [...] → [*places.shape]."""
    line, numbers = (ttnn.reshape(part, (1, math.prod(part.shape))) for part in (x, places))
    return ttnn.reshape(gather(ttnn, line, 1, numbers), places.shape)


@lower(aten.gather.default, gives="ROW_MAJOR", self=ROWS, index=NUMBERS)
def gather(ttnn: TTNN, x: Tensor, dim, index: Tensor, sparse_grad=False):
    """x at the positions `index` along `dim`; index is no larger than x in the other dimensions."""
    _require(ttnn, index, x)
    if len(x.shape) > 1:
        return ttnn.gather(x, dim, index)
    found = ttnn.gather(ttnn.reshape(x, (1, *x.shape)), 1, ttnn.reshape(index, (1, *index.shape)))
    return ttnn.reshape(found, index.shape)


@lower(operators.gather_columns, places=Need(dtype="uint32"))
def gather_columns(ttnn: TTNN, x: Tensor, places: Tensor):
    """Of each row of x [..., width] the elements at its places [..., count], in tiles."""
    _require(ttnn, places, x)
    return ttnn.gather(x, -1, places)


@lower(*SCATTERS, gives="ROW_MAJOR", self=ROWS, index=NUMBERS, src=ROWS)
def scatter(ttnn: TTNN, x: Tensor, dim, index: Tensor, src: Tensor, reduce=None, *, include_self=True):
    """x with the elements of src written to the positions `index` along `dim`, or added to or multiplied with those."""
    _require(ttnn, index, x, src)
    if reduce is not None and (reduce not in REDUCTIONS or not include_self):
        raise Unsupported(f"TTNN has no scatter with reduce={reduce!r}, include_self={include_self}")
    combined = {"reduce": REDUCTIONS[reduce]} if reduce else {}
    return ttnn.scatter(x, dim % len(x.shape), index, src, **combined)


@lower(aten.scatter_add.default, gives="ROW_MAJOR", self=ROWS, index=NUMBERS, src=ROWS)
def scatter_add(ttnn: TTNN, x: Tensor, dim, index: Tensor, src: Tensor):
    """x with the elements of src added at the positions `index` along `dim`, in float32."""
    return scatter(ttnn, x, dim, index, src, "add")
