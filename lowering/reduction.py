"""Reductions: ATen node → TTNN calls.

TTNN sums in float32 and rounds once. Counts (sums of booleans) go through float32, which holds every integer up to
2^24; sums and extremes of other integers stay on the host. `passes/normalize/reductions.py` brings every reduction
to operands of its result's dtype, so an integer `dtype` here means that booleans are counted.
"""

from __future__ import annotations

import math

from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering.elementwise import require_float
from tt_dynamo.lowering.registry import lower
from tt_dynamo.lowering.workarounds import exact_sums

COUNTABLE = 1 << 24  # float32 holds every integer up to here


def reduced_dims(x, dim):
    """The dimensions that `dim` names, in order and from 0 on: None and an empty list name all."""
    rank = len(x.shape)
    dims = range(rank) if dim is None or dim == [] or dim == () else [dim] if isinstance(dim, int) else dim
    return tuple(sorted(d % rank for d in dims)) if rank else ()


def reduced_size(x, dim):
    return math.prod(x.shape[d] for d in reduced_dims(x, dim))


def without(shape, dims):
    """The shape less the dimensions `dims`."""
    return tuple(size for d, size in enumerate(shape) if d not in dims)


def is_count(dtype):
    """Whether a reduction in `dtype` counts booleans."""
    return dtype is not None and not dtype.is_floating_point


def _reduced(ttnn, name, x, dim, keepdim, **options):
    return getattr(ttnn, name)(
        x,
        dim=reduced_dims(x, dim),
        keepdim=keepdim,
        compute_kernel_config=ttnn.settings.compute_kernel_config,
        **options,
    )


@lower(aten.mean.dim)
def mean(ttnn, x, dim, keepdim=False, dtype=None):
    """Mean over the dimensions `dim`; float."""
    require_float(ttnn, x)
    return _reduced(ttnn, "mean", x, dim, keepdim)


@lower(aten.mean.default)
def mean_of_all(ttnn, x, dtype=None):
    """Mean of all elements; float."""
    return mean(ttnn, x, None)


@lower(aten.sum.dim_IntList)
def sum_(ttnn, x, dim, keepdim=False, dtype=None):
    """Sum over the dimensions `dim`: float, or how many booleans hold."""
    require_float(ttnn, x)
    return _count(ttnn, x, dim, keepdim) if is_count(dtype) else _reduced(ttnn, "sum", x, dim, keepdim)


@lower(aten.sum.default)
def sum_of_all(ttnn, x, dtype=None):
    """Sum of all elements: float, or how many booleans hold."""
    return sum_(ttnn, x, None, dtype=dtype)


def _count(ttnn, x, dim, keepdim):
    require_countable(reduced_size(x, dim))
    numbers = ttnn.typecast(x, ttnn.float32)
    dims = reduced_dims(x, dim)
    count = ttnn.sum(numbers, dim=dims, keepdim=keepdim, compute_kernel_config=exact_sums(ttnn))
    return ttnn.typecast(count, ttnn.int32)


def require_countable(size):
    if size > COUNTABLE:
        raise Unsupported(f"float32 cannot count to {size}")


@lower(aten.nansum.default)
def nansum(ttnn, x, dim=None, keepdim=False, dtype=None):
    """Sum over the dimensions `dim` of what is a number; float."""
    require_float(ttnn, x)
    return sum_(ttnn, ttnn.where(ttnn.isnan(x), 0.0, x), dim, keepdim)


@lower(aten.amax.default)
def amax(ttnn, x, dim=(), keepdim=False):
    """Largest element along the dimensions `dim`; float or boolean."""
    require_float(ttnn, x)
    return _reduced(ttnn, "max", x, dim, keepdim)


@lower(aten.amin.default)
def amin(ttnn, x, dim=(), keepdim=False):
    """Smallest element along the dimensions `dim`; float or boolean."""
    require_float(ttnn, x)
    return _reduced(ttnn, "min", x, dim, keepdim)


@lower(aten.max.default)
def largest(ttnn, x):
    """The largest of all elements."""
    return amax(ttnn, x)


@lower(aten.min.default)
def smallest(ttnn, x):
    """The smallest of all elements."""
    return amin(ttnn, x)


@lower(aten.aminmax.default)
def aminmax(ttnn, x, *, dim=None, keepdim=False):
    """The smallest and the largest element along `dim`, or of all."""
    return amin(ttnn, x, dim, keepdim), amax(ttnn, x, dim, keepdim)


@lower(aten.any.dim, aten.any.dims, aten.any.default)
def any_(ttnn, x, dim=None, keepdim=False):
    """Whether one of the booleans along `dim` holds; an empty list names no dimension here."""
    return x if dim == [] else amax(ttnn, x, dim, keepdim)


@lower(aten.all.dim, aten.all.dims, aten.all.default)
def all_(ttnn, x, dim=None, keepdim=False):
    """Whether all booleans along `dim` hold; an empty list names no dimension here."""
    return x if dim == [] else amin(ttnn, x, dim, keepdim)


@lower(aten.var.correction)
def var(ttnn, x, dim=None, *, correction=None, keepdim=False):
    """Variance over `dim`, of squared distances from the mean by Welford's method, times n / (n - correction)."""
    return _spread(ttnn, "var", x, dim, correction, keepdim, lambda factor: factor)


@lower(aten.std.correction)
def std(ttnn, x, dim=None, *, correction=None, keepdim=False):
    """Standard deviation over `dim`: the root of the variance."""
    return _spread(ttnn, "std", x, dim, correction, keepdim, math.sqrt)


def _spread(ttnn, name, x, dim, correction, keepdim, scale):
    """TTNN knows the corrections 0 and 1; others are a factor away from 0."""
    correction, size = 1 if correction is None else correction, reduced_size(x, dim)
    if correction in (0, 1):
        return _reduced(ttnn, name, x, dim, keepdim, correction=bool(correction))
    if correction >= size:
        raise Unsupported(f"a correction of {correction} leaves nothing of {size} elements")
    uncorrected = _reduced(ttnn, name, x, dim, keepdim, correction=False)
    return ttnn.multiply(uncorrected, scale(size / (size - correction)))


@lower(aten.var_mean.correction)
def var_mean(ttnn, x, dim=None, *, correction=None, keepdim=False):
    """Variance and mean over `dim`."""
    return var(ttnn, x, dim, correction=correction, keepdim=keepdim), mean(ttnn, x, dim, keepdim)


@lower(aten.std_mean.correction)
def std_mean(ttnn, x, dim=None, *, correction=None, keepdim=False):
    """Standard deviation and mean over `dim`."""
    return std(ttnn, x, dim, correction=correction, keepdim=keepdim), mean(ttnn, x, dim, keepdim)


@lower(aten.linalg_vector_norm.default)
def vector_norm(ttnn, x, ord=2, dim=None, keepdim=False, dtype=None):
    """Norm of order `ord` over the dimensions `dim`: the root of a sum of powers, an extreme, a count."""
    require_float(ttnn, x)
    if ord == 2:
        return ttnn.sqrt(sum_(ttnn, ttnn.multiply(x, x), dim, keepdim))
    if ord == 0:
        return sum_(ttnn, ttnn.ne(x, 0), dim, keepdim)
    sizes = ttnn.abs(x)
    if ord == 1:
        return sum_(ttnn, sizes, dim, keepdim)
    if math.isinf(ord):
        return amax(ttnn, sizes, dim, keepdim) if ord > 0 else amin(ttnn, sizes, dim, keepdim)
    return ttnn.pow(sum_(ttnn, ttnn.pow(sizes, float(ord)), dim, keepdim), 1 / ord)


@lower(aten.norm.ScalarOpt_dim, aten.norm.Scalar)
def norm(ttnn, x, p=2, dim=None, keepdim=False):
    """Norm of order p over the dimensions `dim`."""
    return vector_norm(ttnn, x, 2 if p is None else p, dim, keepdim)


@lower(aten.dist.default)
def dist(ttnn, x, other, p=2):
    """Norm of order p of x - other, which broadcast."""
    require_float(ttnn, x, other)
    return vector_norm(ttnn, ttnn.subtract(x, other), p)


@lower(aten._cdist_forward.default)
def cdist(ttnn, x1, x2, p, compute_mode=None):
    """Norm of order p of each row of x1 [..., m, width] less each row of x2 [..., n, width]: [..., m, n]."""
    require_float(ttnn, x1, x2)
    rows = ttnn.reshape(x1, (*x1.shape[:-1], 1, x1.shape[-1]))
    columns = ttnn.reshape(x2, (*x2.shape[:-2], 1, *x2.shape[-2:]))
    return vector_norm(ttnn, ttnn.subtract(rows, columns), p, [-1])


@lower(aten.logsumexp.default)
def logsumexp(ttnn, x, dim, keepdim=False):
    """log(sum(exp(x - m))) + m over the dimensions `dim`, m the largest element there, in float32 throughout.

    An infinite m would make NaN of inf - inf; then 0 stands for it, and exp and log say the rest.
    """
    require_float(ttnn, x)
    largest = amax(ttnn, x, dim, keepdim=True)
    largest = ttnn.where(ttnn.isinf(largest), 0.0, largest)
    powers = ttnn.exp(ttnn.subtract(x, largest, dtype=ttnn.float32))
    result = ttnn.add(ttnn.log(sum_(ttnn, powers, dim, keepdim=True)), largest, dtype=ttnn.bfloat16)
    return result if keepdim else ttnn.reshape(result, without(x.shape, reduced_dims(x, dim)))


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
