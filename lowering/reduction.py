"""Reductions: ATen node → TTNN calls.

TTNN sums in float32 and rounds once. Counts (sums of booleans) go through float32, which holds every integer up to
2^24; sums and extremes of other integers stay on the host. `passes/normalize/dtypes.py` brings every reduction
to operands of its result's dtype, so an integer `dtype` here means that booleans are counted.
"""

import math

from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering.registry import TTNN, Tensor, lower
from tt_dynamo.lowering.workarounds import exact_sums

COUNTABLE = 1 << 24  # float32 holds every integer up to here


def reduced_dims(x, dim):
    """The dimensions that `dim` names, in order and from 0 on: None and an empty list name all."""
    rank = len(x.shape)
    dims = [dim] if isinstance(dim, int) else dim or range(rank)
    return tuple(sorted(d % rank for d in dims)) if rank else ()


def _without(shape, dims):
    """The shape less the dimensions `dims`."""
    return tuple(size for d, size in enumerate(shape) if d not in dims)


def _is_count(dtype, size):
    """Whether a reduction in `dtype` counts booleans, up to `size` of them."""
    if dtype is None or dtype.is_floating_point:
        return False
    if size > COUNTABLE:
        raise Unsupported(f"float32 cannot count to {size}")
    return True


def _reduced_size(x, dim):
    return math.prod(x.shape[d] for d in reduced_dims(x, dim))


def _reduced(ttnn: TTNN, name, x: Tensor, dim, keepdim, **options):
    options = {"compute_kernel_config": ttnn.settings.compute_kernel_config, **options}
    return getattr(ttnn, name)(x, dim=reduced_dims(x, dim), keepdim=keepdim, **options)


@lower(aten.mean.dim, aten.mean.default, floats=True)
def mean(ttnn: TTNN, x: Tensor, dim=None, keepdim=False, dtype=None):
    """Mean over the dimensions `dim`, or of all elements; float."""
    return _reduced(ttnn, "mean", x, dim, keepdim)


@lower(aten.sum.dim_IntList, aten.sum.default, floats=True)
def sum_(ttnn: TTNN, x: Tensor, dim=None, keepdim=False, dtype=None):
    """Sum over the dimensions `dim`, or of all elements: float, or how many booleans hold."""
    if not _is_count(dtype, _reduced_size(x, dim)):
        return _reduced(ttnn, "sum", x, dim, keepdim)
    numbers = ttnn.typecast(x, ttnn.float32)
    count = _reduced(ttnn, "sum", numbers, dim, keepdim, compute_kernel_config=exact_sums(ttnn))
    return ttnn.typecast(count, ttnn.int32)


@lower(aten.amax.default, aten.max.default, floats=True)
def amax(ttnn: TTNN, x: Tensor, dim=(), keepdim=False):
    """Largest element along the dimensions `dim`, or of all; float or boolean."""
    return _reduced(ttnn, "max", x, dim, keepdim)


@lower(aten.amin.default, aten.min.default, floats=True)
def amin(ttnn: TTNN, x: Tensor, dim=(), keepdim=False):
    """Smallest element along the dimensions `dim`, or of all; float or boolean."""
    return _reduced(ttnn, "min", x, dim, keepdim)


@lower(aten.any.dim, aten.any.dims, aten.any.default)
def any_(ttnn: TTNN, x: Tensor, dim=None, keepdim=False):
    """Whether one of the booleans along `dim` holds; an empty list names no dimension here."""
    return x if dim == [] else amax(ttnn, x, dim, keepdim)


@lower(aten.all.dim, aten.all.dims, aten.all.default)
def all_(ttnn: TTNN, x: Tensor, dim=None, keepdim=False):
    """Whether all booleans along `dim` hold; an empty list names no dimension here."""
    return x if dim == [] else amin(ttnn, x, dim, keepdim)


@lower(aten.var.correction)
def var(ttnn: TTNN, x: Tensor, dim=None, *, correction=None, keepdim=False):
    """Variance over `dim`, of squared distances from the mean by Welford's method, times n / (n - correction)."""
    return _spread(ttnn, "var", x, dim, correction, keepdim)


@lower(aten.std.correction)
def std(ttnn: TTNN, x: Tensor, dim=None, *, correction=None, keepdim=False):
    """Standard deviation over `dim`: the root of the variance."""
    return _spread(ttnn, "std", x, dim, correction, keepdim)


def _spread(ttnn: TTNN, name, x: Tensor, dim, correction, keepdim):
    """TTNN knows the corrections 0 and 1; others are a factor away from 0."""
    correction, size = 1 if correction is None else correction, _reduced_size(x, dim)
    if correction in (0, 1):
        return _reduced(ttnn, name, x, dim, keepdim, correction=bool(correction))
    if correction >= size:
        raise Unsupported(f"a correction of {correction} leaves nothing of {size} elements")
    factor = size / (size - correction)
    uncorrected = _reduced(ttnn, name, x, dim, keepdim, correction=False)
    return ttnn.multiply(uncorrected, factor if name == "var" else math.sqrt(factor))


@lower(aten.var_mean.correction)
def var_mean(ttnn: TTNN, x: Tensor, dim=None, *, correction=None, keepdim=False):
    """Variance and mean over `dim`."""
    return _spread(ttnn, "var", x, dim, correction, keepdim), mean(ttnn, x, dim, keepdim)


@lower(aten.std_mean.correction)
def std_mean(ttnn: TTNN, x: Tensor, dim=None, *, correction=None, keepdim=False):
    """Standard deviation and mean over `dim`."""
    return _spread(ttnn, "std", x, dim, correction, keepdim), mean(ttnn, x, dim, keepdim)


@lower(aten.linalg_vector_norm.default, floats=True)
def vector_norm(ttnn: TTNN, x: Tensor, ord=2, dim=None, keepdim=False, dtype=None):
    """Norm of order `ord` over the dimensions `dim`: the root of a sum of powers, an extreme, a count."""
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


@lower(aten._cdist_forward.default, floats=True)
def cdist(ttnn: TTNN, x1: Tensor, x2: Tensor, p, compute_mode=None):
    """Norm of order p of each row of x1 [..., m, width] less each row of x2 [..., n, width]: [..., m, n]."""
    rows = ttnn.reshape(x1, (*x1.shape[:-1], 1, x1.shape[-1]))
    columns = ttnn.reshape(x2, (*x2.shape[:-2], 1, *x2.shape[-2:]))
    return vector_norm(ttnn, ttnn.subtract(rows, columns), p, [-1])


@lower(aten._euclidean_dist.default, floats=True)
def euclidean_dist(ttnn: TTNN, x1: Tensor, x2: Tensor):
    """The same of order 2, of differences too: what a product leaves of a small distance, bfloat16 rounds away."""
    return cdist(ttnn, x1, x2, 2.0)


@lower(aten.logsumexp.default, floats=True)
def logsumexp(ttnn: TTNN, x: Tensor, dim, keepdim=False):
    """log(sum(exp(x - m))) + m over the dimensions `dim`, m the largest element there, in float32 throughout.

    An infinite m would make NaN of inf - inf; then 0 stands for it, and exp and log say the rest.
    """
    largest = amax(ttnn, x, dim, keepdim=True)
    largest = ttnn.where(ttnn.isinf(largest), 0.0, largest)
    powers = ttnn.exp(ttnn.subtract(x, largest, dtype=ttnn.float32))
    result = ttnn.add(ttnn.log(sum_(ttnn, powers, dim, keepdim=True)), largest, dtype=ttnn.bfloat16)
    return result if keepdim else ttnn.reshape(result, _without(x.shape, reduced_dims(x, dim)))


def _scan(name):
    def scan(ttnn, x, dim, dtype=None):
        """Sums or products of the elements up to each along `dim`: float, or of booleans, which counts them."""
        line = x if x.shape else ttnn.reshape(x, (1,))
        counts = _is_count(dtype, line.shape[dim])
        scanned = getattr(ttnn, name)(line, dim, dtype=ttnn.float32)
        scanned = ttnn.typecast(scanned, ttnn.int32 if counts else ttnn.bfloat16)
        return scanned if x.shape else ttnn.reshape(scanned, ())

    return scan


lower(aten.cumsum.default, floats=True)(_scan("cumsum"))
lower(aten.cumprod.default, floats=True)(_scan("cumprod"))


@lower(aten.prod.dim_int, aten.prod.default, floats=True)
def prod(ttnn: TTNN, x: Tensor, dim=None, keepdim=False, dtype=None):
    """Product of the elements along `dim`, or of all: float, or whether all booleans hold."""
    if _is_count(dtype, size=1):
        return ttnn.typecast(amin(ttnn, x, dim, keepdim), ttnn.int32)
    shape, dims = x.shape, reduced_dims(x, dim)
    if not shape:
        return ttnn.clone(x)
    x = ttnn.typecast(x, ttnn.float32)
    for reduced in reversed(dims):
        x = _last_product(ttnn, x, reduced)
    x = ttnn.typecast(x, ttnn.bfloat16)
    return ttnn.reshape(x, tuple(1 if d in dims else size for d, size in enumerate(shape))) if keepdim else x


def _last_product(ttnn: TTNN, x: Tensor, dim):
    """The last of the running products along `dim`, which goes to the front: there no tile's padding is read."""
    size, rest = x.shape[dim], _without(x.shape, [dim])
    front = ttnn.permute(x, (dim, *(d for d in range(len(x.shape)) if d != dim))) if dim else x
    front = ttnn.reshape(front, (size, *[1] * (3 - len(rest)), *rest))
    products = ttnn.cumprod(front, 0)
    last = ttnn.slice(products, (size - 1, *[0] * (len(front.shape) - 1)), front.shape)
    return ttnn.reshape(last, rest)
