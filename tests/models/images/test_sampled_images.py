"""Networks that read images between their pixels: all on the device, as exact as eager bfloat16 at least."""

import os

import pytest
import torch
from comparison import pcc
from torch.utils._pytree import tree_leaves

import tt_dynamo

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
SIZES = {"d_model": 64, "encoder_layers": 1, "decoder_layers": 2, "num_queries": 10, "num_feature_levels": 2}
HEADS = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}


def deformable_detr():
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], out_features=["stage2"])
    config = DeformableDetrConfig(
        use_timm_backbone=False, backbone=None, backbone_config=backbone, use_pretrained_backbone=False,
        **SIZES, **HEADS,
    )  # fmt: skip
    return DeformableDetrForObjectDetection(config), (torch.randn(1, 3, 64, 96),), {}, "pred_boxes"


def rt_detr():
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    stages = ["stage2", "stage3", "stage4"]
    backbone = RTDetrResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 32, 64], depths=[1, 1, 1, 1], out_features=stages
    )
    config = RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[32, 32, 64], decoder_in_channels=[64, 64, 64],
        encoder_hidden_dim=64, encoder_ffn_dim=64, encoder_attention_heads=2, d_model=64, num_queries=10,
        decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=64, num_denoising=0, encoder_layers=1,
    )  # fmt: skip
    return RTDetrForObjectDetection(config), (torch.randn(1, 3, 64, 64),), {}, "pred_boxes"


def raft():
    from torchvision.models.optical_flow import raft_small

    images = torch.randn(2, 3, 128, 128)
    return raft_small(weights=None), tuple(images.split(1)), {"num_flow_updates": 2}, None


@pytest.mark.slow
@pytest.mark.parametrize("make", [deformable_detr, raft])
def test_a_network_that_samples_runs_on_the_device(make):
    torch.manual_seed(0)
    torch._dynamo.reset()
    model, inputs, options, wanted = make()
    model.eval()
    with torch.no_grad(), tt_dynamo.record() as reports:
        ours = torch.compile(model, backend="ttnn", options={"device": BOARD, "fallback": "error"})(*inputs, **options)
        eager = model(*inputs, **options)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(*inputs, **options)
    assert len(reports) == 1 and not reports[0].fallbacks
    for outputs in zip(*(tree_leaves(out[wanted] if wanted else out) for out in (ours, eager, half)), strict=True):
        mine, exact, rounded = outputs
        assert pcc(mine, exact) >= min(0.99, pcc(rounded.float(), exact))


@pytest.mark.slow
def test_queries_are_chosen_and_refined_by_the_device():
    """Of scores that are nearly equal, as random weights give, eager torch may choose others."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    model, inputs, _, _ = rt_detr()
    with torch.no_grad(), tt_dynamo.record() as reports:
        options = {"device": BOARD, "fallback": "error", "dry_run": True}
        torch.compile(model.eval(), backend="ttnn", options=options)(*inputs)
    assert len(reports) == 1 and reports[0].launches["ttnn.grid_sample"] == 3
