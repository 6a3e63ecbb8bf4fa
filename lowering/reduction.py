"""Reductions: ATen node → TTNN calls."""

from __future__ import annotations

from tt_dynamo.graph import Unsupported, aten
from tt_dynamo.lowering.elementwise import require_float
from tt_dynamo.lowering.registry import lower


def _dims(x, dim):
    rank = len(x.shape)
    return tuple(d % rank for d in (dim or range(rank)))


@lower(aten.mean.dim)
def mean(ttnn, x, dim, keepdim=False, dtype=None):
    """Mean over the dimensions `dim`; float."""
    require_float(ttnn, x)
    return ttnn.mean(x, dim=_dims(x, dim), keepdim=keepdim, compute_kernel_config=ttnn.settings.compute_kernel_config)


@lower(aten.sum.dim_IntList)
def sum_(ttnn, x, dim, keepdim=False, dtype=None):
    """Sum over the dimensions `dim`; float."""
    require_float(ttnn, x)
    return ttnn.sum(x, dim=_dims(x, dim), keepdim=keepdim, compute_kernel_config=ttnn.settings.compute_kernel_config)


@lower(aten.linalg_vector_norm.default)
def vector_norm(ttnn, x, ord=2, dim=None, keepdim=False, dtype=None):
    """Euclidean norm over the dimensions `dim`."""
    if ord != 2:
        raise Unsupported(f"a vector norm of order {ord} stays on the host")
    squares = ttnn.multiply(x, x)
    return ttnn.sqrt(sum_(ttnn, squares, dim, keepdim))
