"""Convolutions of flattened images: fused node → TTNN calls.

Weights and bias arrive as tensors of TTNN on the host, in torch's order: TTNN lays them out for one convolution of one
shape, by a call of its own that constants take only once (`tt_dynamo.compiler.prepare`). A convolution takes its image
as it lies and leaves its own sharded in L1, so that of several in a row each launches what it
computes and nothing else.
"""

from __future__ import annotations

import dataclasses
import math
import re

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.spec import on_device
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


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to hold a convolution in memory.

    block_height: rows at once. double: whether the next blocks of image and weights come while these are computed.
    sharding: what to change to. slices: into how many its image in DRAM is cut, of which one at a time is in L1.
    """

    block_height: int = 0
    double: bool = False
    sharding: str = ""
    slices: int = 0


def ways(is_sharded: bool, shardings: tuple[str, ...] = SHARDINGS, in_blocks: bool = False) -> list[Way]:
    """The ways to try, cheapest first: by kernel launches, then by the length of the blocks and whether they wait.

    shardings: those to change to. in_blocks: a reader needs the result block-sharded.
    """
    as_it_lies = [Way(height, double) for height in BLOCK_HEIGHTS for double in (True, False)]
    resharded = [
        Way(height, double, sharding)
        for sharding in shardings
        for height, double in ((0, True), (0, False), (32, False))
    ]
    sliced = [Way(height, slices=count) for count in SLICES for height in workarounds.SLICED_BLOCK_HEIGHTS]
    found = resharded + as_it_lies if in_blocks else as_it_lies + resharded
    return found + ([] if is_sharded else sliced)


@lower(operators.conv2d, sharded=True, x=Need("any"), weight=Need("HOST"), bias=Need("HOST"))
def conv2d(ttnn, x, weight, bias, image, stride, padding, dilation, groups, activation="", in_blocks=False):
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
        where = {"memory_config": ttnn.DRAM_MEMORY_CONFIG} if way.slices else {}
        return ttnn.conv2d(input_tensor=x, **prepared, dtype=ttnn.bfloat16, **where, **how)

    _check_weights(weight, bias)
    asked = "conv2d", str(memory), str(x.layout), tuple(x.shape), tuple(weight.shape), bias is None, activation
    reshard = in_blocks and is_sharded(x) and memory.memory_layout.name != "BLOCK_SHARDED"
    how = (*image, *stride, *padding, *dilation, groups, *_precision(ttnn), reshard)
    result, way = _first_accepted(ttnn, convolve, ways(is_sharded(x), in_blocks=reshard), (*asked, *how))
    if way.sharding == "BLOCK_SHARDED" and is_sharded(x):
        ttnn.settings.wanted_in_blocks.append(x)
    return result


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
        where = {"memory_config": ttnn.DRAM_MEMORY_CONFIG} if way.slices else {}
        return ttnn.conv_transpose2d(input_tensor=x, **prepared, dtype=ttnn.bfloat16, **where, **how, **grown)

    _check_weights(weight, bias)
    asked = "conv_transpose2d", str(memory), str(x.layout), tuple(x.shape), tuple(weight.shape), bias is None
    how = (*image, *stride, *padding, *dilation, groups, *output_padding, *_precision(ttnn))
    return _first_accepted(ttnn, convolve, ways(is_sharded(x), LARGER), (*asked, *how))[0]


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


def _precision(ttnn):
    """What of the compute configuration takes L1, by value: its text names only where the object lies."""
    config = ttnn.settings.compute_kernel_config
    return str(config.math_fidelity), config.fp32_dest_acc_en, config.packer_l1_acc


def _config(ttnn, image, way, fused):
    sharding = {}
    if way.sharding:
        layout = getattr(ttnn.TensorMemoryLayout, way.sharding)
        sharding = {"shard_layout": layout, "reshard_if_not_optimal": True}
    return ttnn.Conv2dConfig(
        weights_dtype=ttnn.bfloat16,
        act_block_h_override=way.block_height,
        enable_act_double_buffer=way.double,
        enable_weights_double_buffer=way.double,
        reallocate_halo_output=False,
        **sharding,
        **fused,
        **workarounds.convolution(image[1]),
    )


def _slices(ttnn, image, way):
    if not way.slices:
        return ttnn.Op2DL1FullSliceConfig
    _, height, width = image
    kind = ttnn.Op2DDRAMSliceHeight if height >= width else ttnn.Op2DDRAMSliceWidth
    return ttnn.Op2DSliceConfig(slice_type=kind, num_slices=way.slices)


def _activation(ttnn, name):
    return ttnn.UnaryWithParam(getattr(ttnn.UnaryOpType, ACTIVATIONS[name]))


def _check_weights(weight, bias):
    if any(x is not None and on_device(getattr(x, "tensor", x)) for x in (weight, bias)):
        raise Unsupported("TTNN prepares the weights of a convolution on the host, and the device computes these")


def _first_accepted(ttnn, convolve, tried, asked):
    """The convolution in the first way that TTNN accepts, kept with the device for others of this shape, and that way.

    Raises what TTNN says of the first.
    """
    found = ttnn.settings.found
    known = found.get(asked)
    first: Exception | None = None
    fits = True
    for way in [*([known] if known in tried else []), *tried]:
        if not (fits or way.slices):
            continue
        try:
            result = convolve(way)
        except Exception as error:
            first = first or type(error)(str(error))  # without its traceback, which would hold buffers in L1
            fits = fits and not _exceeds_all_cores(ttnn, str(error))
        else:
            found.setdefault(asked, way)
            return result, way
    assert first is not None
    try:
        raise first
    finally:
        del first  # its traceback holds this frame: a cycle, in which buffers in L1 would wait for the collector


def _exceeds_all_cores(ttnn, words):
    """Whether TTNN says that it wants more bytes at once than the L1 of all cores has, however they are sharded."""
    found = re.search(r"allocate (\d+) B L1 buffer.* bank size is (\d+) B", words, re.DOTALL)
    return found is not None and int(found[1]) > int(found[2]) * math.prod(ttnn.settings.grid_size)


@lower(aten.convolution.default)
def convolution(ttnn, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    """What `passes/images/channels_last.py` left: TTNN convolves images and signals of floats."""
    require_float(ttnn, x, weight)
    raise Unsupported(f"a convolution over {len(weight.shape) - 2} dimensions stays on the host")


@lower(operators.add_activation, sharded=True)
def add_activation(ttnn, x, y, activation, in_blocks=False):
    """The activation of x + y, images or vectors of one shape."""
    where = {"memory_config": blocks(ttnn, x.shape)} if in_blocks and is_sharded(x) and is_sharded(y) else {}
    if activation == "relu6":  # TTNN's golden of a sum knows it by this name alone
        after = ttnn.UnaryWithParam(ttnn.UnaryOpType.RELU_MAX, 6.0)
    else:
        after = _activation(ttnn, activation)
    return ttnn.add(x, y, activations=[after], **where)
