"""Operations on volumes and on images between their pixels, against torch: shape, dtype and values."""

from typing import Any

import pytest
import torch
from torch.nn import functional


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("block", [16, 48])
def test_conv3d_of_prepared_weights(
    ttnn: Any, emulated: Any, upload: Any, random: Any, device: Any, groups: int, block: int
) -> None:
    volume, weight, bias = random(2, 48, 3, 4, 5), random(64, 48 // groups, 2, 3, 1), random(1, 64)
    prepared = emulated.experimental.prepare_conv3d_weights(
        weight_tensor=emulated.from_torch(weight, dtype=ttnn.bfloat16),
        groups=groups, C_in_block=block, alignment=16, device=device.handle,
    )  # fmt: skip
    options = {"stride": (1, 2, 1), "padding": (1, 0, 2), "dilation": (2, 1, 1), "groups": groups}
    found = emulated.experimental.conv3d(
        input_tensor=upload(volume.permute(0, 2, 3, 4, 1), layout=ttnn.ROW_MAJOR_LAYOUT),
        weight_tensor=emulated.to_layout(prepared, ttnn.TILE_LAYOUT),
        bias_tensor=upload(bias),
        config=ttnn.Conv3dConfig(
            C_in_block=block, C_out_block=32, W_out_block=4, alignment=16,
            compute_with_storage_grid_size=device.handle.compute_with_storage_grid_size(),
        ),
        dtype=ttnn.bfloat16, output_channels=64, kernel_size=(2, 3, 1), **options,
    )  # fmt: skip
    expected = functional.conv3d(volume, weight, bias[0], **options).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(found.value, expected, rtol=1 / 256, atol=1e-5)


def test_prepared_weights_fill_up_their_channels_with_zeros(ttnn: Any, emulated: Any, random: Any, device: Any) -> None:
    weight = random(32, 3, 1, 2, 1)
    prepared = emulated.experimental.prepare_conv3d_weights(
        weight_tensor=emulated.from_torch(weight, dtype=ttnn.bfloat16),
        C_in_block=16,
        alignment=16,
        device=device.handle,
    )
    rows = prepared.value.reshape(2, 16, 32)
    assert torch.equal(rows[:, :3], weight[:, :, 0, :, 0].permute(2, 1, 0)) and not rows[:, 3:].any()


@pytest.mark.parametrize("align_corners", [False, True])
def test_grid_sample_at_positions_of_float32(
    ttnn: Any, emulated: Any, upload: Any, random: Any, align_corners: bool
) -> None:
    image, grid = random(2, 32, 4, 300), torch.rand(2, 3, 5, 2) * 2.2 - 1.1
    found = emulated.grid_sample(
        upload(image.permute(0, 2, 3, 1), layout=ttnn.ROW_MAJOR_LAYOUT),
        upload(grid, dtype=ttnn.float32, layout=ttnn.ROW_MAJOR_LAYOUT),
        align_corners=align_corners,
    )
    expected = functional.grid_sample(image, grid, align_corners=align_corners).permute(0, 2, 3, 1)
    torch.testing.assert_close(found.value, expected, rtol=1 / 256, atol=1e-5)
