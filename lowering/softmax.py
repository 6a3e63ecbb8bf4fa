"""Softmax, its logarithm and their gradients, along any dimension: ATen node → TTNN calls."""

from __future__ import annotations

import math

from tt_dynamo.graph import aten
from tt_dynamo.lowering.elementwise import require_float
from tt_dynamo.lowering.reduction import amax
from tt_dynamo.lowering.registry import lower


def _along(ttnn, operation, dim, *operands):
    """operation(ttnn, *operands, dim) with a dimension to run along, which single numbers do not have."""
    require_float(ttnn, *operands)
    config = ttnn.settings.compute_kernel_config
    rank = len(operands[0].shape)
    if rank:
        return operation(*operands, dim=dim % rank, compute_kernel_config=config)
    vectors = [ttnn.reshape(x, (1,)) for x in operands]
    return ttnn.reshape(operation(*vectors, dim=0, compute_kernel_config=config), ())


@lower(aten.softmax.int, aten._softmax.default)
def softmax(ttnn, x, dim, dtype=None):
    """Softmax over `dim`, with the maximum subtracted first."""

    def stable(x, **options):
        return ttnn.softmax(x, numeric_stable=True, **options)

    return _along(ttnn, stable, dim, x)


@lower(aten._safe_softmax.default)
def safe_softmax(ttnn, x, dim, dtype=None):
    """Softmax over `dim`, 0 where all is -inf."""
    empty = ttnn.eq(amax(ttnn, x, dim, keepdim=True), -math.inf)
    return ttnn.where(empty, 0.0, softmax(ttnn, x, dim))


@lower(aten.log_softmax.int, aten._log_softmax.default)
def log_softmax(ttnn, x, dim, dtype=None):
    """x - m - log(sum(exp(x - m))) over `dim`, m the largest element there."""
    return _along(ttnn, ttnn.moreh_logsoftmax, dim, x)


@lower(aten._softmax_backward_data.default)
def softmax_backward(ttnn, grad_output, output, dim, input_dtype):
    """Gradient of a softmax over `dim`: output * (grad - sum(grad * output))."""
    return _along(ttnn, ttnn.moreh_softmax_backward, dim, output, grad_output)


@lower(aten._log_softmax_backward_data.default)
def log_softmax_backward(ttnn, grad_output, output, dim, input_dtype):
    """Gradient of the logarithm of a softmax over `dim`: grad - exp(output) * sum(grad)."""
    return _along(ttnn, ttnn.moreh_logsoftmax_backward, dim, output, grad_output)
