"""Convolutions of flattened images: fused node → TTNN calls.

Weights and bias arrive as tensors of TTNN on the host, in torch's order: TTNN lays them out for one convolution of one
shape, by a call of its own that constants take only once (`tt_dynamo.compiler.traced_weights`). A convolution takes its
image as it lies and leaves its own sharded in L1, so that of several in a row each launches what it computes and
nothing else.
"""

import dataclasses
import math
from typing import Any

from torch.fx import Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused, Unsupported
from tt_dynamo.ir.graph import aten, is_call
from tt_dynamo.ir.spec import on_device
from tt_dynamo.ir.ttnn_internals import lacks_l1_of_all_cores
from tt_dynamo.lowering import workarounds
from tt_dynamo.lowering.memory import assigned_dtype, blocks, is_sharded, memory_config
from tt_dynamo.lowering.registry import TTNN, Need, Tensor, lower

# TTNN would choose their number by what is free in L1 when it is called, which may be more than its kernels leave it.
SLICES = (2, 4, 8, 16, 32, 64)
# Rows of the activation that a core takes at once, 0 for all of its share: less takes less of its L1.
BLOCK_HEIGHTS = (0, 64, 32)
SHARDINGS = ("BLOCK_SHARDED", "WIDTH_SHARDED", "HEIGHT_SHARDED")
# Of images that grow: cores that hold all of the pixels have room for small ones, which lie as well in blocks.
LARGER = ("BLOCK_SHARDED", "HEIGHT_SHARDED")


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


@dataclasses.dataclass(frozen=True)
class Kind:
    """A convolution of TTNN: its call, those that prepare for it, the order of weights, and its name for slices."""

    call: str
    prepare: str
    order: str
    slices: str


CONVOLUTION = Kind("conv2d", "prepare_conv", "OIHW", "slice_config")
TRANSPOSED = Kind("conv_transpose2d", "prepare_conv_transpose2d", "IOHW", "dram_slice_config")


@lower(operators.conv2d, sharded=True, x=Need("any"), weight=Need("HOST"), bias=Need("HOST"))
def conv2d(ttnn, x, weight, bias, image, stride, padding, dilation, groups, activation="", block_sharded=False):
    """x [1, 1, batch * height * width, in] → [1, 1, batch * new height * new width, out], sharded in L1 if it fits."""
    out, group, *_ = weight.shape
    reshard = block_sharded and is_sharded(x) and memory_config(ttnn, x).memory_layout.name != "BLOCK_SHARDED"
    asked = ("conv2d", x, weight, bias, image, stride, padding, dilation, groups, activation, reshard)
    ways = candidates(is_sharded(x), block_sharded=reshard)
    fused = {"activation": _activation(ttnn, activation)} if activation else {}
    return _convolve(ttnn, CONVOLUTION, asked, (group * groups, out), ways, fused=fused)


@lower(operators.conv_transpose2d, sharded=True, x=Need("any"), weight=Need("HOST"), bias=Need("HOST"))
def conv_transpose2d(ttnn: TTNN, x: Tensor, weight, bias, image, stride, padding, dilation, groups, output_padding):
    """x [1, 1, batch * height * width, in] → [1, 1, batch * new height * new width, out], sharded in L1 if it fits."""
    channels, group, *_ = weight.shape
    asked = ("conv_transpose2d", x, weight, bias, image, stride, padding, dilation, groups, output_padding)
    ways = candidates(is_sharded(x), LARGER)
    grown = {"output_padding": tuple(output_padding)}
    return _convolve(ttnn, TRANSPOSED, asked, (channels, group * groups), ways, grown=grown)


def _convolve(ttnn: TTNN, kind, asked, channels, ways, fused=None, grown=None):
    """The convolution in the first way that TTNN accepts, in the sharding that is estimated to take the least time.

    It is not whole where all cores together have no room for that.

    asked: the arguments, from the second on as operators have them. channels: of the image and of the result. fused: of
    the configuration. grown: what only a transposed convolution is told.
    """
    _, x, weight, bias, image, stride, padding, dilation, groups, *_ = asked
    if any(tensor is not None and on_device(getattr(tensor, "tensor", tensor)) for tensor in (weight, bias)):
        raise Unsupported("TTNN prepares the weights of a convolution on the host, and the device computes these")
    workarounds.check_groups(groups, channels[0])
    grown = grown or {}
    no_room: list[str] = []
    geometry = {
        **dict(zip(("in_channels", "out_channels"), channels, strict=True)),
        **dict(zip(("batch_size", "input_height", "input_width"), image, strict=True)),
        "kernel_size": tuple(weight.shape)[2:],
        "stride": tuple(stride),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "groups": groups,
        "device": ttnn.settings.device,
        "compute_config": ttnn.settings.weight_kernel_config,
    }
    given = {"input_memory_config": memory_config(ttnn, x), "input_layout": x.layout, "input_dtype": x.dtype}
    weights = {"weight_tensor": weight, "weights_format": kind.order, "has_bias": bias is not None}

    def convolve(way):
        config = _config(ttnn, image, way, fused or {})
        how = {**geometry, "conv_config": config, kind.slices: _slices(ttnn, image, way)}
        prepared = {"weight_tensor": getattr(ttnn, f"{kind.prepare}_weights")(**weights, **how, **grown, **given)}
        if bias is not None:
            prepared["bias_tensor"] = getattr(ttnn, f"{kind.prepare}_bias")(bias_tensor=bias, **how, **given)
        where = {"memory_config": ttnn.DRAM_MEMORY_CONFIG} if "slices" in way else {}
        dtype = getattr(ttnn, ttnn.dtype or "bfloat16")
        return getattr(ttnn, kind.call)(input_tensor=x, **prepared, dtype=dtype, **where, **how, **grown)

    def attempt(way):
        if no_room and "slices" not in way:
            raise Refused(no_room[0])
        try:
            result = convolve(way)
        except Exception as error:
            if "sharding" not in way and lacks_l1_of_all_cores(error, math.prod(ttnn.settings.grid_size)):
                no_room.append(str(error))
            raise
        return result, way

    is_compared = ttnn.compares_shardings and "sharding" not in ways[0]
    asked = *asked, ttnn.dtype, ttnn.weight_dtype, is_compared
    result, way = ttnn.choose(asked, ways, attempt, compared=_compared if is_compared else None)
    if kind is CONVOLUTION and way.get("sharding") == "BLOCK_SHARDED" and is_sharded(x):
        ttnn.settings.wants_block_sharding.append(x)
    return result


def _compared(way):
    """The sharding as which a way is compared, None where it is for what fits in no other.

    Width shards are slow, and what needs small blocks in other shards fits better as it lies.
    """
    if "sharding" not in way:
        return None if "slices" in way else "as it lies"
    is_plain = way["sharding"] != "WIDTH_SHARDED" and way["block_height"] == 0
    return way["sharding"] if is_plain else None


def _config(ttnn: TTNN, image, way, fused):
    sharding = {}
    if "sharding" in way:
        layout = getattr(ttnn.TensorMemoryLayout, way["sharding"])
        sharding = {"shard_layout": layout, "reshard_if_not_optimal": True}
    return ttnn.Conv2dConfig(
        weights_dtype=getattr(ttnn, ttnn.weight_dtype or "bfloat16"),
        act_block_h_override=way["block_height"],
        enable_act_double_buffer=way["double"],
        enable_weights_double_buffer=way["double"],
        reallocate_halo_output=False,
        **sharding,
        **fused,
        **workarounds.convolution(image[1]),
    )


def _slices(ttnn: TTNN, image, way):
    if "slices" not in way:
        return ttnn.Op2DL1FullSliceConfig
    _, height, width = image
    kind = ttnn.Op2DDRAMSliceHeight if height >= width else ttnn.Op2DDRAMSliceWidth
    return ttnn.Op2DSliceConfig(slice_type=kind, num_slices=way["slices"])


def _activation(ttnn: TTNN, name):
    return ttnn.UnaryWithParam(getattr(ttnn.UnaryOpType, name.upper()))


@lower(aten.convolution.default, floats=True)
def convolution(ttnn: TTNN, x: Tensor, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    """What `passes/images/channels_last.py` left: TTNN convolves images and signals of floats."""
    raise Unsupported(f"a convolution over {len(weight.shape) - 2} dimensions stays on the host")


def _layout_of_sum(node: Node) -> str:
    """Volumes lie in rows, and so does their sum."""
    return "ROW_MAJOR" if all(map(_lies_in_rows, node.args[:2])) else "TILE"


def _lies_in_rows(x: Node) -> bool:
    x = x.args[0] if is_call(x, operators.to_layout) else x
    return is_call(x, operators.conv3d) or (is_call(x, operators.add_activation) and _layout_of_sum(x) == "ROW_MAJOR")


SUMMAND = Need(_layout_of_sum)


@lower(operators.add_activation, gives=_layout_of_sum, sharded=True, x=SUMMAND, y=SUMMAND)
def add_activation(ttnn: TTNN, x: Tensor, y, activation, block_sharded=False):
    """The activation of x + y, images or vectors of one shape."""
    where = {"memory_config": blocks(ttnn, x.shape)} if block_sharded and is_sharded(x) and is_sharded(y) else {}
    where.update(assigned_dtype(ttnn, x))
    if activation == "relu6":  # TTNN's golden of a sum knows it by this name alone
        after = ttnn.UnaryWithParam(ttnn.UnaryOpType.RELU_MAX, 6.0)
    else:
        after = _activation(ttnn, activation)
    return ttnn.add(x, y, activations=[after], **where)
