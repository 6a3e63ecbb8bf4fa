"""Running sums and products, and products along a dimension: ATen node → TTNN calls.

TTNN keeps the running value in the dtype of the result, and `ttnn.prod` multiplies in bfloat16: both would round at
every step. So they run in float32 here and are rounded once.
"""

from __future__ import annotations

from tt_dynamo.graph import aten
from tt_dynamo.lowering.elementwise import require_float
from tt_dynamo.lowering.reduction import amin, is_count, require_countable, without
from tt_dynamo.lowering.registry import lower


def _scan(ttnn, name, x, dim, dtype):
    require_float(ttnn, x)
    shape = x.shape
    if not shape:
        x = ttnn.reshape(x, (1,))
    if is_count(dtype):
        require_countable(x.shape[dim])
    scanned = getattr(ttnn, name)(x, dim, dtype=ttnn.float32)
    scanned = ttnn.typecast(scanned, ttnn.int32 if is_count(dtype) else ttnn.bfloat16)
    return scanned if shape else ttnn.reshape(scanned, ())


@lower(aten.cumsum.default)
def cumsum(ttnn, x, dim, dtype=None):
    """Sums of the elements up to each along `dim`: float, or how many booleans hold so far."""
    return _scan(ttnn, "cumsum", x, dim, dtype)


@lower(aten.cumprod.default)
def cumprod(ttnn, x, dim, dtype=None):
    """Products of the elements up to each along `dim`: float, or whether all booleans hold so far."""
    return _scan(ttnn, "cumprod", x, dim, dtype)


@lower(aten.prod.dim_int)
def prod(ttnn, x, dim, keepdim=False, dtype=None):
    """Product of the elements along `dim`: float, or whether all booleans hold."""
    return _product(ttnn, x, [dim], keepdim, dtype)


@lower(aten.prod.default)
def prod_of_all(ttnn, x, dtype=None):
    """Product of all elements: float, or whether all booleans hold."""
    return _product(ttnn, x, range(len(x.shape)), False, dtype)


def _product(ttnn, x, dims, keepdim, dtype):
    require_float(ttnn, x)
    shape, dims = x.shape, [d % max(len(x.shape), 1) for d in dims]
    if is_count(dtype):
        return ttnn.typecast(amin(ttnn, x, dims, keepdim), ttnn.int32)
    if not shape:
        return ttnn.clone(x)
    x = ttnn.typecast(x, ttnn.float32)
    for dim in sorted(dims, reverse=True):
        x = _last_product(ttnn, x, dim)
    x = ttnn.typecast(x, ttnn.bfloat16)
    kept = tuple(1 if d in dims else size for d, size in enumerate(shape))
    return ttnn.reshape(x, kept) if keepdim else x


def _last_product(ttnn, x, dim):
    """The last of the running products along `dim`, which goes to the front: there no tile's padding is read."""
    rest = without(x.shape, [dim])
    size = x.shape[dim]
    front = ttnn.permute(x, (dim, *(d for d in range(len(x.shape)) if d != dim))) if dim else x
    front = ttnn.reshape(front, (size, *[1] * (3 - len(rest)), *rest))
    products = ttnn.cumprod(front, 0)
    last = ttnn.slice(products, (size - 1, *[0] * (len(front.shape) - 1)), front.shape)
    return ttnn.reshape(last, rest)
