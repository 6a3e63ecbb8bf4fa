"""Normalizations: ATen node → TTNN calls.

TTNN normalizes over the last dimension only; what is normalized together is made one first: trailing dimensions, a
group of channels, a channel of all images. The weights and biases of channels stand in nodes of their own
(`passes/images/norms.py`).
"""

import itertools
import math

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.spec import Columns, divisors, tiles
from tt_dynamo.lowering.memory import (
    assigned,
    blocks_of,
    in_columns,
    is_in_columns,
    is_sharded,
    memory_config,
    moved_beside,
    on_rectangle,
)
from tt_dynamo.lowering.reduction import amax
from tt_dynamo.lowering.registry import TTNN, Need, Tensor, lower


def _precision(ttnn: TTNN):
    return {"compute_kernel_config": ttnn.settings.compute_kernel_config}


def _in_shards(ttnn: TTNN, x: Tensor):
    """The keywords of a norm of x, which lies in shards of rows by columns; TTNN leaves the result in such as well."""
    lies = blocks_of(ttnn, x)
    program = ttnn.LayerNormShardedMultiCoreProgramConfig(
        compute_with_storage_grid_size=ttnn.CoreCoord(lies.columns, lies.rows),
        subblock_w=divisors(lies.width, 4)[0],
        block_h=lies.height,
        block_w=lies.width,
        inplace=False,
    )
    return {"program_config": program, "memory_config": memory_config(ttnn, x)}


def _normalized(ttnn: TTNN, x: Tensor, eps, **operands):
    options = {"epsilon": eps, **operands, **_precision(ttnn)}
    x = on_rectangle(ttnn, x) if is_in_columns(x) else x
    return _on_cores(ttnn, "layer_norm", x, **options, **(_in_shards(ttnn, x) if is_sharded(x) else assigned(ttnn)))


def _on_cores(ttnn: TTNN, name, x: Tensor, **options):
    """A norm of x, which TTNN computes a row of tiles on a core, unless x lies in shards.

    A decode step has one such row: it is spread over cores, each with columns of its own, where its stream lies in
    width shards, or where the estimate says that this is worth the moves.
    """
    normalize = getattr(ttnn, name)
    if isinstance(ttnn.memory, Columns) and not is_sharded(x):
        return _moved_to(ttnn, normalize, in_columns(ttnn, ttnn.memory), x, **options)
    rows, columns = tiles(x.shape)
    if is_sharded(x) or rows != 1 or x.shape[-1] % ttnn.TILE_SIZE or ttnn.memory is not None:
        return normalize(x, **options)
    grid = max(
        itertools.product(*(range(1, size + 1) for size in ttnn.settings.grid_size)),
        key=lambda size: (columns % math.prod(size) == 0, math.prod(size)),
    )

    def call(candidate):
        if not candidate:
            return normalize(x, **options)
        across, down = candidate["cores"]
        lies = Columns(across, down, columns // (across * down))
        normalized = _moved_to(ttnn, normalize, in_columns(ttnn, lies), x, **options)
        return ttnn.to_memory_config(normalized, ttnn.DRAM_MEMORY_CONFIG)

    operands = {key: value for key, value in options.items() if key != "compute_kernel_config"}
    return ttnn.choose((name, x, operands), [{}, {"cores": grid}], call, costed=True)


def _moved_to(ttnn: TTNN, normalize, place, x: Tensor, **options):
    """A norm of x, and of what is added to it, in shards to which both are moved."""
    if "residual_input_tensor" in options:
        options["residual_input_tensor"] = ttnn.to_memory_config(options["residual_input_tensor"], place)
    shards = ttnn.to_memory_config(x, place)
    return normalize(shards, **{**options, **_in_shards(ttnn, shards)})


def _moments(ttnn: TTNN, rows, shape):
    """Mean and variance of each of the rows [count, width], in `shape`."""
    mean = ttnn.mean(rows, dim=-1, keepdim=True, **_precision(ttnn))
    variance = ttnn.var(rows, dim=-1, keepdim=True, correction=False, **_precision(ttnn))
    return ttnn.reshape(mean, shape), ttnn.reshape(variance, shape)


def _kept_statistics(ttnn: TTNN, rows, eps, shape):
    """Mean and 1 / sqrt(variance + eps) of each of the rows [count, width], in `shape`, as training keeps them."""
    mean, variance = _moments(ttnn, rows, shape)
    return mean, ttnn.rsqrt(ttnn.add(variance, eps))


@lower(aten.layer_norm.default)
def layer_norm(ttnn: TTNN, x: Tensor, normalized_shape, weight=None, bias=None, eps=1e-5, cudnn_enable=True):
    """Layer norm over the trailing `normalized_shape`.

    x: [..., *normalized_shape], float. Source: Ba, Kiros & Hinton 2016, https://arxiv.org/abs/1607.06450
    """
    if len(normalized_shape) == 1:
        return _normalized(ttnn, x, eps, weight=weight, bias=bias)
    width = math.prod(normalized_shape)
    rows = ttnn.reshape(x, (*x.shape[: -len(normalized_shape)], width))
    weight, bias = (operand and ttnn.reshape(operand, (width,)) for operand in (weight, bias))
    return ttnn.reshape(_normalized(ttnn, rows, eps, weight=weight, bias=bias), x.shape)


@lower(aten.native_layer_norm.default)
def native_layer_norm(ttnn: TTNN, x: Tensor, normalized_shape, weight, bias, eps):
    """The same, and the mean and 1 / sqrt(variance + eps) of what was normalized together, kept for training."""
    leading = x.shape[: len(x.shape) - len(normalized_shape)]
    rows = ttnn.reshape(x, (math.prod(leading), math.prod(normalized_shape)))
    statistics = _kept_statistics(ttnn, rows, eps, (*leading, *[1] * len(normalized_shape)))
    return layer_norm(ttnn, x, normalized_shape, weight, bias, eps), *statistics


@lower(operators.add_layer_norm)
def add_layer_norm(ttnn: TTNN, x: Tensor, residual: Tensor, weight, bias, eps):
    """Layer norm of x + residual, both [..., width]; where one lies in shards, the other is moved there."""
    if is_in_columns(residual):
        residual = on_rectangle(ttnn, residual)
    if is_in_columns(x) and is_sharded(residual):
        x = ttnn.to_memory_config(x, memory_config(ttnn, residual))
    elif is_sharded(x):
        x = on_rectangle(ttnn, x) if is_in_columns(x) else x
        residual = moved_beside(ttnn, residual, x)
    elif is_sharded(residual):
        x = moved_beside(ttnn, x, residual)
    if is_sharded(x) and x.dtype != residual.dtype:
        # TTNN reads a residual's shards as if they had x's dtype, which it does not check:
        # normalization/layernorm/device/sharded_layernorm_factory_helpers.cpp of tt-metal.
        residual = ttnn.typecast(residual, x.dtype)
    return _normalized(ttnn, x, eps, residual_input_tensor=residual, weight=weight, bias=bias)


@lower(operators.rms_norm, sharded=True)
def rms_norm(ttnn: TTNN, x: Tensor, weight, eps):
    """x over its root mean square along the last dimension, times the weight.

    x [..., width], weight [width]. Source: Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467
    """
    options = _precision(ttnn)
    if is_in_columns(x):
        x = on_rectangle(ttnn, x)
        return _on_cores(ttnn, "rms_norm", x, weight=weight, epsilon=eps, **options, **_in_shards(ttnn, x))
    if is_sharded(x):  # heads, each user's on a core of their own: TTNN norms no such rows, but leaves them there
        options["memory_config"] = memory_config(ttnn, x)
        x = ttnn.to_memory_config(x, ttnn.L1_MEMORY_CONFIG)
    return _on_cores(ttnn, "rms_norm", x, weight=weight, epsilon=eps, **options)


@lower(operators.group_norm, sharded=True)
def group_norm_of_images(ttnn: TTNN, x: Tensor, image, groups, eps):
    """x [1, 1, batch * height * width, channels], each group of neighbouring channels of each image by itself.

    TTNN's own, with statistics in float32; channels and pixels fill whole tiles (`passes/images/pointwise.py`).
    """
    batch, height, width = image
    images = ttnn.reshape(x, (batch, 1, height * width, x.shape[-1]))
    place = {"inplace": False, "memory_config": memory_config(ttnn, images)}
    options = {"num_groups": groups, "epsilon": eps, "use_welford": True, **place, **_precision(ttnn)}
    return ttnn.reshape(ttnn.group_norm(images, **options), x.shape)


def _groups_as_rows(ttnn: TTNN, x: Tensor, weight, bias, groups):
    """Each group of neighbouring channels of each image as a row."""
    _require_no_affine(weight, bias)
    return ttnn.reshape(x, (x.shape[0] * groups, -1))


@lower(aten.group_norm.default)
def group_norm(ttnn: TTNN, x: Tensor, num_groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=True):
    """x [batch, channels, ...] normalized over each group of neighbouring channels of each image, by itself.

    TTNN's own group norm takes whole tiles of channels and has them last. Source: Wu & He 2018,
    https://arxiv.org/abs/1803.08494
    """
    rows = _groups_as_rows(ttnn, x, weight, bias, num_groups)
    return ttnn.reshape(_normalized(ttnn, rows, eps), x.shape)


@lower(aten.native_group_norm.default)
def native_group_norm(ttnn: TTNN, x: Tensor, weight, bias, batch, channels, pixels, groups, eps):
    """The same, and the mean and 1 / sqrt(variance + eps) of each group, [batch, groups], kept for training."""
    rows = _groups_as_rows(ttnn, x, weight, bias, groups)
    return ttnn.reshape(_normalized(ttnn, rows, eps), x.shape), *_kept_statistics(ttnn, rows, eps, (batch, groups))


def _require_no_affine(weight, bias):
    if weight is not None or bias is not None:
        raise Unsupported("the weight and bias of channels belong into nodes of their own")


def _over_channels(ttnn: TTNN, x: Tensor, weight, bias, eps):
    """x [batch, channels, ...] normalized over each channel of all images, and the rows [channels, everything else]."""
    _require_no_affine(weight, bias)
    batch, channels, *spatial = x.shape
    order = (1, 0, *range(2, len(x.shape)))
    rows = ttnn.reshape(x if batch == 1 else ttnn.permute(x, order), (channels, -1))
    normalized = _normalized(ttnn, rows, eps)
    if batch == 1:
        return ttnn.reshape(normalized, x.shape), rows
    return ttnn.permute(ttnn.reshape(normalized, (channels, batch, *spatial)), order), rows


@lower(aten._native_batch_norm_legit.no_stats)
def batch_norm(ttnn: TTNN, x: Tensor, weight, bias, training, momentum, eps):
    """x [batch, channels, ...] normalized over each channel of all images; its mean and 1 / sqrt(variance + eps).

    Source: Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167
    """
    normalized, rows = _over_channels(ttnn, x, weight, bias, eps)
    return normalized, *_kept_statistics(ttnn, rows, eps, (x.shape[1],))


FLOAT32 = Need("TILE", "float32")


@lower(aten._native_batch_norm_legit_functional.default, running_mean=FLOAT32, running_var=FLOAT32)
def batch_norm_and_update(ttnn: TTNN, x: Tensor, weight, bias, running_mean, running_var, training, momentum, eps):
    """The same, and the running statistics after it.

    They are float32 on the device as well, like the mean and variance that join them: steps of less than a bfloat16's
    last bit must add up over many calls.
    """
    if not training:
        raise Unsupported("a batch norm in evaluation updates no statistics")
    normalized, rows = _over_channels(ttnn, x, weight, bias, eps)
    mean, variance = _moments(ttnn, ttnn.typecast(rows, ttnn.float32), (x.shape[1],))
    kept = (ttnn.typecast(x, ttnn.bfloat16) for x in (mean, ttnn.rsqrt(ttnn.add(variance, eps))))
    count = rows.shape[-1]

    def updated(running, new, factor):
        return ttnn.add(ttnn.multiply(running, 1 - momentum), ttnn.multiply(new, momentum * factor))

    running = updated(running_mean, mean, 1.0), updated(running_var, variance, count / (count - 1))
    return normalized, *kept, *running


def _along(ttnn: TTNN, operation, dim, *operands, **options):
    """An operation of TTNN with a dimension to run along, which single numbers do not have."""
    options |= _precision(ttnn)
    if operands[0].shape:
        return operation(*operands, dim=dim % len(operands[0].shape), **options)
    vectors = [ttnn.reshape(x, (1,)) for x in operands]
    return ttnn.reshape(operation(*vectors, dim=0, **options), ())


@lower(aten.softmax.int, aten._softmax.default, floats=True)
def softmax(ttnn: TTNN, x: Tensor, dim, dtype=None):
    """Softmax over `dim`, with the maximum subtracted first."""
    return _along(ttnn, ttnn.softmax, dim, x, numeric_stable=True)


@lower(aten._safe_softmax.default)
def safe_softmax(ttnn: TTNN, x: Tensor, dim, dtype=None):
    """Softmax over `dim`, 0 where all is -inf."""
    empty = ttnn.eq(amax(ttnn, x, dim, keepdim=True), -math.inf)
    return ttnn.where(empty, 0.0, softmax(ttnn, x, dim))


@lower(aten.log_softmax.int, aten._log_softmax.default, floats=True)
def log_softmax(ttnn: TTNN, x: Tensor, dim, dtype=None):
    """x - m - log(sum(exp(x - m))) over `dim`, m the largest element there."""
    return _along(ttnn, ttnn.moreh_logsoftmax, dim, x)


@lower(aten._softmax_backward_data.default, floats=True)
def softmax_backward(ttnn: TTNN, grad_output: Tensor, output: Tensor, dim, input_dtype):
    """Gradient of a softmax over `dim`: output * (grad - sum(grad * output))."""
    return _along(ttnn, ttnn.moreh_softmax_backward, dim, output, grad_output)


@lower(aten._log_softmax_backward_data.default, floats=True)
def log_softmax_backward(ttnn: TTNN, grad_output: Tensor, output: Tensor, dim, input_dtype):
    """Gradient of the logarithm of a softmax over `dim`: grad - exp(output) * sum(grad)."""
    return _along(ttnn, ttnn.moreh_logsoftmax_backward, dim, output, grad_output)
