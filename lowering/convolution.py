"""Convolutions of flattened images: fused node → TTNN calls.

Weights and bias arrive as tensors of TTNN on the host, in torch's order: TTNN lays them out for one convolution of one
shape, by a call of its own that constants take only once (`tt_dynamo.preparation`).
"""

from __future__ import annotations

from tt_dynamo import operators_image
from tt_dynamo.graph import Unsupported, aten
from tt_dynamo.lowering import workarounds
from tt_dynamo.lowering.elementwise import require_float
from tt_dynamo.lowering.recorder import on_device
from tt_dynamo.lowering.registry import Need, lower

# Rows of the activation that a core takes at once, 0 for all of its share: less takes less of its L1.
BLOCK_HEIGHTS = (0, 64, 32)


@lower(operators_image.conv2d, x=Need("any"), weight=Need("HOST"), bias=Need("HOST"))
def conv2d(ttnn, x, weight, bias, image, stride, padding, dilation, groups):
    """x [1, 1, batch * height * width, in] → [1, 1, batch * new height * new width, out]."""
    out, group, *_ = weight.shape
    geometry = _geometry(ttnn, image, weight, group * groups, out, stride, padding, dilation, groups)
    given = {"input_memory_config": ttnn.DRAM_MEMORY_CONFIG, "input_layout": x.layout, "input_dtype": x.dtype}

    def convolve(config, slices):
        how = {**geometry, "conv_config": config, "slice_config": slices}
        prepared = {
            "weight_tensor": ttnn.prepare_conv_weights(
                weight_tensor=weight, weights_format="OIHW", has_bias=bias is not None, **how, **given
            )
        }
        if bias is not None:
            prepared["bias_tensor"] = ttnn.prepare_conv_bias(bias_tensor=bias, **how, **given)
        return ttnn.conv2d(
            input_tensor=x, **prepared, dtype=ttnn.bfloat16, memory_config=ttnn.DRAM_MEMORY_CONFIG, **how
        )

    return _first_accepted(ttnn, convolve, weight, bias, image)


@lower(operators_image.conv_transpose2d, x=Need("any"), weight=Need("HOST"), bias=Need("HOST"))
def conv_transpose2d(ttnn, x, weight, bias, image, stride, padding, dilation, groups, output_padding):
    """x [1, 1, batch * height * width, in] → [1, 1, batch * new height * new width, out]."""
    channels, group, *_ = weight.shape
    geometry = _geometry(ttnn, image, weight, channels, group * groups, stride, padding, dilation, groups)
    given = {"input_memory_config": ttnn.DRAM_MEMORY_CONFIG, "input_layout": x.layout, "input_dtype": x.dtype}
    grown = {"output_padding": tuple(output_padding)}

    def convolve(config, slices):
        how = {**geometry, "conv_config": config, "dram_slice_config": slices}
        prepared = {
            "weight_tensor": ttnn.prepare_conv_transpose2d_weights(
                weight_tensor=weight, weights_format="IOHW", has_bias=bias is not None, **how, **grown, **given
            )
        }
        if bias is not None:
            prepared["bias_tensor"] = ttnn.prepare_conv_transpose2d_bias(bias_tensor=bias, **how, **given)
        memory = {"dtype": ttnn.bfloat16, "memory_config": ttnn.DRAM_MEMORY_CONFIG}
        return ttnn.conv_transpose2d(input_tensor=x, **prepared, **how, **grown, **memory)

    return _first_accepted(ttnn, convolve, weight, bias, image)


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
        "kernel_size": tuple(weight.shape[2:]),
        "stride": tuple(stride),
        "padding": tuple(padding),
        "dilation": tuple(dilation),
        "groups": groups,
        "device": ttnn.settings.device,
        "compute_config": ttnn.settings.compute_kernel_config,
    }


def _first_accepted(ttnn, convolve, weight, bias, image):
    """The first way to hold the convolution in L1 that TTNN accepts: whole, in blocks, or sliced as TTNN sees fit.

    Raises what TTNN says of the first.
    """
    if any(x is not None and on_device(getattr(x, "tensor", x)) for x in (weight, bias)):
        raise Unsupported("TTNN prepares the weights of a convolution on the host, and the device computes these")
    attempts = [(height, ttnn.Op2DL1FullSliceConfig) for height in BLOCK_HEIGHTS] + [(0, None)]
    refusals = []
    for height, slices in attempts:
        config = ttnn.Conv2dConfig(
            weights_dtype=ttnn.bfloat16, act_block_h_override=height, **workarounds.convolution(image[1])
        )
        try:
            return convolve(config, slices)
        except Exception as error:
            refusals.append(error)
    raise refusals[0]


@lower(aten.convolution.default)
def convolution(ttnn, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    """What `passes/channels_last.py` left: TTNN convolves images and signals of floats."""
    require_float(ttnn, x, weight)
    raise Unsupported(f"a convolution over {len(weight.shape) - 2} dimensions stays on the host")
