"""Videos of one frame: eager torch's answer, on the device, or eager torch's error."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparison import pcc, relative_error
from vision_language import MODELS, VIDEO, build

import tt_dynamo

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the hub's client when it is imported

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def r3d() -> tuple[Any, torch.Tensor]:
    from torchvision.models.video.resnet import BasicBlock, BasicStem, Conv3DSimple, VideoResNet

    return VideoResNet(BasicBlock, [Conv3DSimple] * 4, [1, 1, 0, 0], BasicStem, 10), torch.randn(1, 3, 1, 24, 24)


def swin3d() -> tuple[Any, torch.Tensor]:
    """Patches of two frames: one is padded."""
    from torchvision.models.video import SwinTransformer3d

    model = SwinTransformer3d([2, 4, 4], 32, [2, 1], [1, 2], [2, 4, 4], num_classes=10)
    return model, torch.randn(1, 3, 1, 32, 32)


def videomae(frames: int = 1) -> tuple[Any, torch.Tensor]:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = VideoMAEConfig(**sizes, image_size=32, patch_size=16, num_frames=frames, tubelet_size=1)
    return VideoMAEForVideoClassification(config), torch.randn(1, 1, 3, 32, 32)


def vjepa2() -> tuple[Any, torch.Tensor]:
    """Patches of two frames: one is repeated."""
    from transformers import VJEPA2Config, VJEPA2ForVideoClassification

    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    config = VJEPA2Config(**sizes, crop_size=32, frames_per_clip=2, num_pooler_layers=1)
    return VJEPA2ForVideoClassification(config), torch.randn(1, 1, 3, 32, 32)


@pytest.mark.parametrize("make", [r3d, videomae, *(pytest.param(m, marks=pytest.mark.slow) for m in (swin3d, vjepa2))])
@torch.no_grad()
def test_a_network_takes_one_frame(make: Callable[[], tuple[Any, torch.Tensor]]) -> None:
    torch.manual_seed(0)
    model, video = make()
    eager = _logits(model.eval()(video))
    with tt_dynamo.record() as reports:
        ours = _logits(torch.compile(model, backend="ttnn")(video))
    (report,) = reports
    assert report.fallbacks == []
    assert ours.shape == eager.shape
    assert relative_error(ours, eager) <= 0.05
    assert pcc(ours, eager) >= 0.99


@torch.no_grad()
def test_one_frame_where_a_patch_is_of_two_is_eager_s_error() -> None:
    from transformers import VideoMAEConfig, VideoMAEModel

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = VideoMAEModel(VideoMAEConfig(**sizes, image_size=32, patch_size=16, num_frames=2, tubelet_size=2)).eval()
    video = torch.randn(1, 1, 3, 32, 32)
    with pytest.raises(RuntimeError) as eager:
        model(video)
    with pytest.raises(RuntimeError) as ours:
        torch.compile(model, backend="ttnn")(video)
    assert str(eager.value).splitlines()[0] in str(ours.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Qwen2.5-VL", "Qwen3-VL"])
@torch.no_grad()
def test_a_language_model_is_shown_one_frame(name: str) -> None:
    assert name in MODELS
    model, inputs = build(name)
    ids = torch.where(inputs["mm_token_type_ids"] == 1, VIDEO, inputs["input_ids"])
    video = {
        "input_ids": ids,
        "mm_token_type_ids": 2 * inputs["mm_token_type_ids"],
        "pixel_values_videos": inputs["pixel_values"],
        "video_grid_thw": inputs["image_grid_thw"],
    }
    eager = model(**video).logits
    with tt_dynamo.record() as reports:
        ours = torch.compile(model, backend="ttnn")(**video).logits
    assert [fallback for report in reports for fallback in report.fallbacks] == []
    assert pcc(ours, eager) >= 0.99
    assert relative_error(ours, eager) <= 0.1


def _logits(output: Any) -> torch.Tensor:
    logits: torch.Tensor = getattr(output, "logits", output)
    return logits
