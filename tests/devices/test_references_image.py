"""Operations on images, against torch: shape, dtype and values."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from rounded_once import check
from torch.nn import functional

Upload = Callable[..., Any]
Random = Callable[..., torch.Tensor]

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


def flat(image: torch.Tensor) -> torch.Tensor:
    """[batch, C, H, W] → [1, 1, batch * H * W, C], as TTNN takes and gives images."""
    return image.permute(0, 2, 3, 1).reshape(1, 1, -1, image.shape[1])


@pytest.fixture
def image(random: Random) -> torch.Tensor:
    return random(2, 32, 8, 10)


@pytest.fixture
def image_on_device(ttnn: Any, upload: Upload, image: torch.Tensor) -> Any:
    return upload(flat(image), layout=ttnn.ROW_MAJOR_LAYOUT)


SIZES = {"in_channels": 32, "out_channels": 64, "batch_size": 2, "input_height": 8, "input_width": 10}


@pytest.mark.parametrize(("padding", "groups", "stride"), [((1, 1), 1, 1), ((1, 0, 1, 2), 1, 2), ((0, 0), 2, 1)])
def test_conv2d(
    ttnn: Any, emulated: Any, random: Random, device: Any, image: torch.Tensor, image_on_device: Any,
    padding: tuple[int, ...], groups: int, stride: int,
) -> None:  # fmt: skip
    weight, bias = random(64, 32 // groups, 3, 3), random(1, 1, 1, 64)
    found = emulated.conv2d(
        input_tensor=image_on_device, weight_tensor=emulated.from_torch(weight, dtype=ttnn.bfloat16),
        bias_tensor=emulated.from_torch(bias, dtype=ttnn.bfloat16), device=device.handle, **SIZES, groups=groups,
        kernel_size=(3, 3), stride=(stride, stride), padding=padding,
    )  # fmt: skip
    top, bottom, left, right = padding if len(padding) == 4 else (padding[0], padding[0], padding[1], padding[1])
    expected = functional.conv2d(
        functional.pad(image, (left, right, top, bottom)), weight, bias.flatten(), stride, groups=groups
    )
    check(found, flat(expected))


def test_conv2d_takes_the_weights_that_ttnn_prepared(
    ttnn: Any, emulated: Any, random: Random, device: Any, image: torch.Tensor, image_on_device: Any
) -> None:
    weight, bias = random(64, 32, 3, 3), random(1, 1, 1, 64)
    host, bias_on_host = (emulated.from_torch(tensor, dtype=ttnn.bfloat16) for tensor in (weight, bias))
    options = {**SIZES, "device": device.handle, "kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1)}
    config = ttnn.Conv2dConfig(weights_dtype=ttnn.bfloat16, activation=ttnn.UnaryWithParam(ttnn.UnaryOpType.RELU))
    expected = flat(functional.relu(functional.conv2d(image, weight, bias.flatten(), padding=1)))
    place = {
        "input_memory_config": ttnn.DRAM_MEMORY_CONFIG, "input_layout": ttnn.ROW_MAJOR_LAYOUT, "dilation": (1, 1),
        "groups": 1, "input_dtype": ttnn.bfloat16, "conv_config": config,
    }  # fmt: skip
    weights, its_bias = (
        emulated.prepare_conv_weights(weight_tensor=host, weights_format="OIHW", has_bias=True, **options, **place),
        emulated.prepare_conv_bias(bias_tensor=bias_on_host, **options, **place),
    )
    assert weights.tensor.device() is not None
    found = emulated.conv2d(
        input_tensor=image_on_device, weight_tensor=weights, bias_tensor=its_bias, **options, conv_config=config
    )
    check(found, expected)


@pytest.mark.parametrize("padding", [[0, 0], [1, 1], [1, 0]])
def test_pools(emulated: Any, image: torch.Tensor, image_on_device: Any, padding: list[int]) -> None:
    found = emulated.max_pool2d(image_on_device, 2, 8, 10, 32, [3, 3], [2, 2], padding, [1, 1])
    check(found, flat(functional.max_pool2d(image, 3, 2, padding)))
    found = emulated.avg_pool2d(image_on_device, 2, 8, 10, 32, [3, 3], [2, 2], padding)
    check(found, flat(functional.avg_pool2d(image, 3, 2, padding)))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsample(ttnn: Any, emulated: Any, upload: Upload, image: torch.Tensor, mode: str) -> None:
    found = emulated.upsample(upload(image.permute(0, 2, 3, 1), layout=ttnn.ROW_MAJOR_LAYOUT), 2, mode=mode)
    check(found, functional.interpolate(image, scale_factor=2, mode=mode).permute(0, 2, 3, 1))


def test_batch_norm(upload: Upload, emulated: Any, random: Random, image: torch.Tensor) -> None:
    mean, weight, bias = random(32), random(32), random(32)
    variance = random(32).abs() + 0.5
    channel = {
        name: upload(value.reshape(1, 32, 1, 1))
        for name, value in {"running_mean": mean, "running_var": variance, "weight": weight, "bias": bias}.items()
    }
    found = emulated.batch_norm(upload(image), eps=1e-5, **channel)
    check(found, functional.batch_norm(image, mean, variance.bfloat16().float(), weight, bias))


def test_group_norm(ttnn: Any, emulated: Any, upload: Upload, random: Random, device: Any, image: torch.Tensor) -> None:
    weight, bias = random(32), random(32)
    mask = emulated.create_group_norm_input_mask(32, 8, 1, ttnn.bfloat8_b)
    affine = [
        upload(emulated.create_group_norm_weight_bias_rm(value, 32, 1), layout=ttnn.ROW_MAJOR_LAYOUT)
        for value in (weight, bias)
    ]
    found = emulated.group_norm(
        upload(flat(image[:1])), num_groups=8, epsilon=1e-5, input_mask=emulated.to_device(mask, device.handle),
        weight=affine[0], bias=affine[1], core_grid=ttnn.CoreGrid(y=1, x=1), inplace=False,
    )  # fmt: skip
    check(found, flat(functional.group_norm(image[:1], 8, weight, bias, 1e-5)))
