"""Convolutions of flattened images: fused node → TTNN calls.

Weights and bias arrive as tensors of TTNN on the host, in torch's order: TTNN lays them out for one convolution of one
shape, by a call of its own that constants take only once (`tt_dynamo.compiler.prepare`). A convolution takes its image
as it lies and leaves its own sharded in L1, so that of several in a row each launches what it
computes and nothing else.
"""

from __future__ import annotations

import math
from typing import Any

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused, Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.spec import on_device
from tt_dynamo.ir.ttnn_internals import lacks_l1_of_all_cores
from tt_dynamo.lowering import workarounds
from tt_dynamo.lowering.elementwise import require_float
from tt_dynamo.lowering.memory import blocks, is_sharded, memory_config
from tt_dynamo.lowering.registry import Need, lower

# TTNN would choose their number by what is free in L1 when it is called, which may be more than its kernels leave it.
SLICES = (2, 4, 8, 16, 32, 64)
# Rows of the activation that a core takes at once, 0 for all of its share: less takes less of its L1.
BLOCK_HEIGHTS = (0, 64, 32)
SHARDINGS = ("BLOCK_SHARDED", "WIDTH_SHARDED", "HEIGHT_SHARDED")
# Of images that grow: cores that hold all of the pixels have room for small ones, which lie as well in blocks.
LARGER = ("BLOCK_SHARDED", "HEIGHT_SHARDED")

ACTIVATIONS = {"relu6": "RELU6", "relu": "RELU", "silu": "SILU", "tanh": "TANH", "sigmoid": "SIGMOID"}


def candidates(
    is_sharded: bool, shardings: tuple[str, ...] = SHARDINGS, block_sharded: bool = False
) -> list[dict[str, Any]]:
    """How to hold a convolution in memory, by kernel launches, the length of the blocks, and whether they wait.

    block_height: rows at once. double: whether the next blocks of image and weights come while these are computed.
    sharding: what to change to, of `shardings`. slices: into how many its image in DRAM is cut, of which one at a time
    is in L1. block_sharded: a reader needs the result block-sharded.
    """
    as_it_lies = [{"block_height": height, "double": double} for height in BLOCK_HEIGHTS for double in (True, False)]
    resharded = [
        {"block_height": height, "double": double, "sharding": sharding}
        for sharding in shardings
        for height, double in ((0, True), (0, False), (32, False))
    ]
    sliced = [
        {"block_height": height, "double": False, "slices": count}
        for count in SLICES
        for height in workarounds.SLICED_BLOCK_HEIGHTS
    ]
    whole = resharded + as_it_lies if block_sharded else as_it_lies + resharded
    return whole + ([] if is_sharded else sliced)


@lower(operators.conv2d, sharded=True, x=Need("any"), weight=Need("HOST"), bias=Need("HOST"))
def conv2d(ttnn, x, weight, bias, image, stride, padding, dilation, groups, activation="", block_sharded=False):
    """x [1, 1, batch * height * width, in] → [1, 1, batch * new height * new width, out], sharded in L1 if it fits."""
    out, group, *_ = weight.shape
    geometry = _geometry(ttnn, image, weight, group * groups, out, stride, padding, dilation, groups)
    memory = memory_config(ttnn, x)
    given = {"input_memory_config": memory, "input_layout": x.layout, "input_dtype": x.dtype}
    fused = {"activation": _activation(ttnn, activation)} if activation else {}

    def convolve(way):
        config = _config(ttnn, image, way, fused)
        how = {**geometry, "conv_config": config, "slice_config": _slices(ttnn, image, way)}
        prepared = {
            "weight_tensor": ttnn.prepare_conv_weights(
                weight_tensor=weight, weights_format="OIHW", has_bias=bias is not None, **how, **given
            )
        }
        if bias is not None:
            prepared["bias_tensor"] = ttnn.prepare_conv_bias(bias_tensor=bias, **how, **given)
        where = {"memory_config": ttnn.DRAM_MEMORY_CONFIG} if "slices" in way else {}
        result = ttnn.conv2d(input_tensor=x, **prepared, dtype=ttnn.bfloat16, **where, **how)
        if way.get("sharding") == "BLOCK_SHARDED" and is_sharded(x):
            ttnn.settings.wants_block_sharding.append(x)
        return result

    _check_weights(weight, bias)
    reshard = block_sharded and is_sharded(x) and memory.memory_layout.name != "BLOCK_SHARDED"
    asked = ("conv2d", x, weight, bias, image, stride, padding, dilation, groups, activation, reshard)
    return _choose(ttnn, asked, candidates(is_sharded(x), block_sharded=reshard), convolve)


@lower(operators.conv_transpose2d, sharded=True, x=Need("any"), weight=Need("HOST"), bias=Need("HOST"))
def conv_transpose2d(ttnn, x, weight, bias, image, stride, padding, dilation, groups, output_padding):
    """x [1, 1, batch * height * width, in] → [1, 1, batch * new height * new width, out], sharded in L1 if it fits."""
    channels, group, *_ = weight.shape
    geometry = _geometry(ttnn, image, weight, channels, group * groups, stride, padding, dilation, groups)
    memory = memory_config(ttnn, x)
    given = {"input_memory_config": memory, "input_layout": x.layout, "input_dtype": x.dtype}
    grown = {"output_padding": tuple(output_padding)}

    def convolve(way):
        slices = _slices(ttnn, image, way)
        how = {**geometry, "conv_config": _config(ttnn, image, way, {}), "dram_slice_config": slices}
        prepared = {
            "weight_tensor": ttnn.prepare_conv_transpose2d_weights(
                weight_tensor=weight, weights_format="IOHW", has_bias=bias is not None, **how, **grown, **given
            )
        }
        if bias is not None:
            prepared["bias_tensor"] = ttnn.prepare_conv_transpose2d_bias(bias_tensor=bias, **how, **given)
        where = {"memory_config": ttnn.DRAM_MEMORY_CONFIG} if "slices" in way else {}
        return ttnn.conv_transpose2d(input_tensor=x, **prepared, dtype=ttnn.bfloat16, **where, **how, **grown)

    _check_weights(weight, bias)
    asked = ("conv_transpose2d", x, weight, bias, image, stride, padding, dilation, groups, output_padding)
    return _choose(ttnn, asked, candidates(is_sharded(x), LARGER), convolve)


def _geometry(ttnn, image, weight, channels, out_channels, stride, padding, dilation, groups):
    """What TTNN asks of every convolution, to prepare its weights and to compute it."""
    workarounds.check_groups(groups, channels)
    batch, height, width = image
    return {
        "in_channels": channels,
        "out_channels": out_channels,
        "batch_size": batch,
        "input_height": height,
        "input_width": width,
        "kernel_size": tuple(weight.shape)[2:],
        "stride": tuple(stride),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "groups": groups,
        "device": ttnn.settings.device,
        "compute_config": ttnn.settings.compute_kernel_config,
    }


def _config(ttnn, image, way, fused):
    sharding = {}
    if "sharding" in way:
        layout = getattr(ttnn.TensorMemoryLayout, way["sharding"])
        sharding = {"shard_layout": layout, "reshard_if_not_optimal": True}
    return ttnn.Conv2dConfig(
        weights_dtype=ttnn.bfloat16,
        act_block_h_override=way["block_height"],
        enable_act_double_buffer=way["double"],
        enable_weights_double_buffer=way["double"],
        reallocate_halo_output=False,
        **sharding,
        **fused,
        **workarounds.convolution(image[1]),
    )


def _slices(ttnn, image, way):
    if "slices" not in way:
        return ttnn.Op2DL1FullSliceConfig
    _, height, width = image
    kind = ttnn.Op2DDRAMSliceHeight if height >= width else ttnn.Op2DDRAMSliceWidth
    return ttnn.Op2DSliceConfig(slice_type=kind, num_slices=way["slices"])


def _activation(ttnn, name):
    return ttnn.UnaryWithParam(getattr(ttnn.UnaryOpType, ACTIVATIONS[name]))


def _check_weights(weight, bias):
    if any(x is not None and on_device(getattr(x, "tensor", x)) for x in (weight, bias)):
        raise Unsupported("TTNN prepares the weights of a convolution on the host, and the device computes these")


def _choose(ttnn, asked, candidates, convolve):
    """The first convolution that TTNN accepts; not asked for one whole where all cores together have no room."""
    no_room: list[str] = []

    def attempt(way):
        if no_room and "slices" not in way:
            raise Refused(no_room[0])
        try:
            return convolve(way)
        except Exception as error:
            if lacks_l1_of_all_cores(error, math.prod(ttnn.settings.grid_size)):
                no_room.append(str(error))
            raise

    return ttnn.choose(asked, candidates, attempt)


@lower(aten.convolution.default)
def convolution(ttnn, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    """What `passes/images/channels_last.py` left: TTNN convolves images and signals of floats."""
    require_float(ttnn, x, weight)
    raise Unsupported(f"a convolution over {len(weight.shape) - 2} dimensions stays on the host")


@lower(operators.add_activation, sharded=True)
def add_activation(ttnn, x, y, activation, block_sharded=False):
    """The activation of x + y, images or vectors of one shape."""
    where = {"memory_config": blocks(ttnn, x.shape)} if block_sharded and is_sharded(x) and is_sharded(y) else {}
    if activation == "relu6":  # TTNN's golden of a sum knows it by this name alone
        after = ttnn.UnaryWithParam(ttnn.UnaryOpType.RELU_MAX, 6.0)
    else:
        after = _activation(ttnn, activation)
    return ttnn.add(x, y, activations=[after], **where)
