"""Transposed convolutions of flattened images, against torch."""

from typing import Any

import pytest
import torch
from torch.nn import functional

GEOMETRIES = [
    {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "output_padding": (0, 0), "dilation": (1, 1), "groups": 1},
    {"kernel": (3, 3), "stride": (2, 1), "padding": (1, 0), "output_padding": (1, 0), "dilation": (1, 2), "groups": 2},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("prepared", [False, True])
def test_conv_transpose2d(ttnn: Any, emulated: Any, upload: Any, random: Any, device: Any, geometry, prepared) -> None:
    options = dict(geometry)
    kernel, groups, grown = options.pop("kernel"), options["groups"], {"output_padding": options.pop("output_padding")}
    image, weight, bias = random(2, 32, 8, 10), random(32, 64 // groups, *kernel), random(1, 1, 1, 64)
    flat = upload(image.permute(0, 2, 3, 1).reshape(1, 1, 160, 32), layout=ttnn.ROW_MAJOR_LAYOUT)
    shape = {"in_channels": 32, "out_channels": 64, "batch_size": 2, "input_height": 8, "input_width": 10}
    config = ttnn.Conv2dConfig(weights_dtype=ttnn.bfloat16)
    how = {**shape, **options, "kernel_size": kernel, "device": device.handle, "conv_config": config}
    weights, offset = (emulated.from_torch(tensor, dtype=ttnn.bfloat16) for tensor in (weight, bias))
    if prepared:
        given = {"input_memory_config": ttnn.DRAM_MEMORY_CONFIG, "input_layout": flat.layout, "input_dtype": flat.dtype}
        weights = emulated.prepare_conv_transpose2d_weights(
            weight_tensor=weights, weights_format="IOHW", has_bias=True, **how, **grown, **given
        )
        offset = emulated.prepare_conv_transpose2d_bias(bias_tensor=offset, **how, **given)
        assert weights.device() is not None and offset.device() is not None
    found = emulated.conv_transpose2d(
        input_tensor=flat, weight_tensor=weights, bias_tensor=offset, **how, **grown, dtype=ttnn.bfloat16
    )
    own = options["stride"], options["padding"], grown["output_padding"], groups, options["dilation"]
    expected = functional.conv_transpose2d(image, weight, bias.flatten(), *own).permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(found.value[0, 0], expected, rtol=1 / 256, atol=1e-5)


def test_conv_transpose2d_with_unequal_padding_has_no_reference() -> None:
    from tt_dynamo.devices.references import REFERENCES

    compute = REFERENCES["ttnn.conv_transpose2d"].compute
    shape = {"in_channels": 1, "out_channels": 1, "batch_size": 1, "input_height": 2, "input_width": 2}
    with pytest.raises(NotImplementedError, match="unequal padding"):
        compute(input_tensor=torch.ones(4), weight_tensor=torch.ones(1, 1, 1, 1), **shape, padding=(0, 1, 0, 0))
