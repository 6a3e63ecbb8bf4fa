"""Normalizations: ATen node → TTNN calls.

TTNN normalizes over the last dimension only; wider normalized shapes are flattened first.
"""

from __future__ import annotations

import math

from tt_dynamo import operators
from tt_dynamo.graph import aten
from tt_dynamo.lowering.registry import lower


@lower(aten.layer_norm.default)
def layer_norm(ttnn, x, normalized_shape, weight=None, bias=None, eps=1e-5, cudnn_enable=True):
    """Layer norm over the trailing `normalized_shape`.

    x: [..., *normalized_shape], float. Source: Ba, Kiros & Hinton 2016, https://arxiv.org/abs/1607.06450
    """
    shape, width = x.shape, math.prod(normalized_shape)
    if len(normalized_shape) > 1:
        x = ttnn.reshape(x, (*shape[: -len(normalized_shape)], width))
        weight = weight and ttnn.reshape(weight, (width,))
        bias = bias and ttnn.reshape(bias, (width,))
    y = ttnn.layer_norm(
        x, weight=weight, bias=bias, epsilon=eps, compute_kernel_config=ttnn.settings.compute_kernel_config
    )
    return ttnn.reshape(y, shape) if len(normalized_shape) > 1 else y


@lower(operators.add_layer_norm)
def add_layer_norm(ttnn, x, residual, weight, bias, eps):
    """Layer norm of x + residual, both [..., width]."""
    return ttnn.layer_norm(
        x,
        residual_input_tensor=residual,
        weight=weight,
        bias=bias,
        epsilon=eps,
        compute_kernel_config=ttnn.settings.compute_kernel_config,
    )
