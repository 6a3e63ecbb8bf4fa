"""Normalizations: ATen node → TTNN calls.

TTNN normalizes over the last dimension only; what is normalized together is made one first: trailing dimensions, a
group of channels, a channel of all images. The weights and biases of channels stand in nodes of their own
(`passes/images/norms.py`).
"""

from __future__ import annotations

import math

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering.elementwise import require_float
from tt_dynamo.lowering.memory import is_sharded, memory_config
from tt_dynamo.lowering.reduction import amax
from tt_dynamo.lowering.registry import Need, lower


def _normalized(ttnn, x, eps, weight=None, bias=None):
    return ttnn.layer_norm(
        x, weight=weight, bias=bias, epsilon=eps, compute_kernel_config=ttnn.settings.compute_kernel_config
    )


def _statistics(ttnn, rows, eps, shape):
    """Mean and 1 / sqrt(variance + eps) of each of the rows [count, width], in `shape`."""
    config = ttnn.settings.compute_kernel_config
    mean = ttnn.mean(rows, dim=-1, keepdim=True, compute_kernel_config=config)
    variance = ttnn.var(rows, dim=-1, keepdim=True, correction=False, compute_kernel_config=config)
    return ttnn.reshape(mean, shape), ttnn.reshape(ttnn.rsqrt(ttnn.add(variance, eps)), shape)


@lower(aten.layer_norm.default)
def layer_norm(ttnn, x, normalized_shape, weight=None, bias=None, eps=1e-5, cudnn_enable=True):
    """Layer norm over the trailing `normalized_shape`.

    x: [..., *normalized_shape], float. Source: Ba, Kiros & Hinton 2016, https://arxiv.org/abs/1607.06450
    """
    shape, width = x.shape, math.prod(normalized_shape)
    if len(normalized_shape) == 1:
        return _normalized(ttnn, x, eps, weight, bias)
    x = ttnn.reshape(x, (*shape[: -len(normalized_shape)], width))
    weight = weight and ttnn.reshape(weight, (width,))
    bias = bias and ttnn.reshape(bias, (width,))
    return ttnn.reshape(_normalized(ttnn, x, eps, weight, bias), shape)


@lower(aten.native_layer_norm.default)
def native_layer_norm(ttnn, x, normalized_shape, weight, bias, eps):
    """The same, and the mean and 1 / sqrt(variance + eps) of what was normalized together, kept for training."""
    leading = x.shape[: len(x.shape) - len(normalized_shape)]
    rows = ttnn.reshape(x, (math.prod(leading), math.prod(normalized_shape)))
    statistics = _statistics(ttnn, rows, eps, (*leading, *[1] * len(normalized_shape)))
    return layer_norm(ttnn, x, normalized_shape, weight, bias, eps), *statistics


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


@lower(operators.rms_norm, sharded=True)
def rms_norm(ttnn, x, weight, eps):
    """x over its root mean square along the last dimension, times the weight.

    x [..., width], weight [width]. Source: Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467
    """
    options = {"compute_kernel_config": ttnn.settings.compute_kernel_config}
    if is_sharded(x):  # heads, each user's on a core of their own: TTNN norms no such rows, but leaves them there
        options["memory_config"] = memory_config(ttnn, x)
        x = ttnn.to_memory_config(x, ttnn.L1_MEMORY_CONFIG)
    return ttnn.rms_norm(x, weight=weight, epsilon=eps, **options)


@lower(aten.group_norm.default)
def group_norm(ttnn, x, num_groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=True):
    """x [batch, channels, ...] normalized over each group of neighbouring channels of each image, by itself.

    TTNN's own group norm takes whole tiles of channels and has them last. Source: Wu & He 2018,
    https://arxiv.org/abs/1803.08494
    """
    _require_no_affine(weight, bias)
    rows = ttnn.reshape(x, (x.shape[0] * num_groups, -1))
    return ttnn.reshape(_normalized(ttnn, rows, eps), x.shape)


@lower(operators.group_norm, sharded=True)
def group_norm_of_images(ttnn, x, image, groups, eps):
    """x [1, 1, batch * height * width, channels], each group of neighbouring channels of each image by itself.

    TTNN's own, with statistics in float32; channels and pixels fill whole tiles (`passes/images/pointwise.py`).
    """
    batch, height, width = image
    images = ttnn.reshape(x, (batch, 1, height * width, x.shape[-1]))
    normalized = ttnn.group_norm(
        images,
        num_groups=groups,
        epsilon=eps,
        inplace=False,
        use_welford=True,
        memory_config=memory_config(ttnn, images),
        compute_kernel_config=ttnn.settings.compute_kernel_config,
    )
    return ttnn.reshape(normalized, x.shape)


@lower(aten.native_group_norm.default)
def native_group_norm(ttnn, x, weight, bias, batch, channels, pixels, groups, eps):
    """The same, and the mean and 1 / sqrt(variance + eps) of each group, [batch, groups], kept for training."""
    _require_no_affine(weight, bias)
    rows = ttnn.reshape(x, (batch * groups, -1))
    return ttnn.reshape(_normalized(ttnn, rows, eps), x.shape), *_statistics(ttnn, rows, eps, (batch, groups))


def _require_no_affine(weight, bias):
    if weight is not None or bias is not None:
        raise Unsupported("the weight and bias of channels belong into nodes of their own")


def _channels_first(ttnn, x):
    """x [batch, channels, ...] as [channels, everything else], and the function that moves such rows back."""
    batch, channels, *spatial = x.shape
    if batch == 1:
        return ttnn.reshape(x, (channels, -1)), lambda rows: ttnn.reshape(rows, x.shape)
    order = (1, 0, *range(2, len(x.shape)))

    def back(rows):
        return ttnn.permute(ttnn.reshape(rows, (channels, batch, *spatial)), order)

    return ttnn.reshape(ttnn.permute(x, order), (channels, -1)), back


@lower(aten._native_batch_norm_legit.no_stats)
def batch_norm(ttnn, x, weight, bias, training, momentum, eps):
    """x [batch, channels, ...] normalized over each channel of all images; its mean and 1 / sqrt(variance + eps).

    Source: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167
    """
    _require_no_affine(weight, bias)
    rows, back = _channels_first(ttnn, x)
    return back(_normalized(ttnn, rows, eps)), *_statistics(ttnn, rows, eps, (x.shape[1],))


FLOAT32 = Need("TILE", "float32")


@lower(aten._native_batch_norm_legit_functional.default, running_mean=FLOAT32, running_var=FLOAT32)
def batch_norm_and_update(ttnn, x, weight, bias, running_mean, running_var, training, momentum, eps):
    """The same, and the running statistics after it.

    They are float32 on the device as well, like the mean and variance that join them: steps of less than a bfloat16's
    last bit must add up over many calls.
    """
    if not training:
        raise Unsupported("a batch norm in evaluation updates no statistics")
    _require_no_affine(weight, bias)
    channels = x.shape[1]
    rows, back = _channels_first(ttnn, x)
    config = ttnn.settings.compute_kernel_config
    exact = ttnn.typecast(rows, ttnn.float32)
    mean = ttnn.mean(exact, dim=-1, keepdim=True, compute_kernel_config=config)
    variance = ttnn.var(exact, dim=-1, keepdim=True, correction=False, compute_kernel_config=config)
    mean, variance = (ttnn.reshape(x, (channels,)) for x in (mean, variance))
    count = rows.shape[-1]

    def updated(running, new, factor):
        return ttnn.add(ttnn.multiply(running, 1 - momentum), ttnn.multiply(new, momentum * factor))

    return (
        back(_normalized(ttnn, rows, eps)),
        ttnn.typecast(mean, ttnn.bfloat16),
        ttnn.typecast(ttnn.rsqrt(ttnn.add(variance, eps)), ttnn.bfloat16),
        updated(running_mean, mean, 1.0),
        updated(running_var, variance, count / (count - 1)),
    )


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
