"""Vision transformers with rotary position embedding over rows and columns, and class tokens that do not turn."""

import os

import pytest
import torch
from comparison import assert_close

import tt_dynamo

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


def timm_model(name):
    def build():
        import timm

        size = {"img_size": 32, "patch_size": 8, "embed_dim": 128, "num_heads": 4, "depth": 2, "num_classes": 10}
        return timm.create_model(name, **size)

    return build


def dinov3():
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    size = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    return DINOv3ViTModel(DINOv3ViTConfig(image_size=32, patch_size=8, layerscale_value=0.5, **size))


MODELS = {
    "EVA-02": (timm_model("eva02_tiny_patch14_224"), 16),
    "ViT with rotary": (timm_model("vit_small_patch16_rope_224"), 16),
    "each head has tables of its own": (timm_model("vit_small_patch16_rope_mixed_224"), 18),
    "DINOv3 of timm": (timm_model("vit_small_patch16_dinov3"), 16),
    "DINOv3 of transformers": (dinov3, 16),
}


@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.parametrize("name", MODELS)
def test_rotary_of_pictures_is_one_call(name):
    build, most = MODELS[name]
    model, image = build().eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad(), tt_dynamo.record() as reports:
        output = torch.compile(model, backend="ttnn", options={"device": BOARD})(image)
        expected = model(image)
    (report,) = reports
    assert not report.fallbacks, report.fallbacks
    assert sum(op.target.startswith("ttnn.experimental.rotary_embedding") for op in report.operations) == 4
    assert report.launches_per_layer() <= most
    ours, eager = (getattr(y, "last_hidden_state", y) for y in (output, expected))
    assert_close(ours, eager)
