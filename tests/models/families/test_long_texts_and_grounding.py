"""LongT5, whose tokens attend to blocks and to sums of blocks, and Grounding DINO, whose boxes are sampled: whole."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from comparison import pcc
from decoders import enliven

import tt_dynamo

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the hub's client when it is imported

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean_dynamo", "board_device")]


def long_t5(kind: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """kind: "transient-global" or "local" attention of the encoder."""
    from transformers import LongT5Config, LongT5ForConditionalGeneration

    sizes = {"vocab_size": 256, "d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 2, "num_heads": 2}
    blocks = {"local_radius": 7, "global_block_size": 4, "encoder_attention_type": kind}
    config = LongT5Config(**sizes, **blocks, feed_forward_proj="gated-gelu", decoder_start_token_id=0)
    ids = torch.randint(2, 256, (1, 64))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return LongT5ForConditionalGeneration(config), {**inputs, "decoder_input_ids": torch.randint(2, 256, (1, 8))}


def grounding_dino() -> tuple[Any, dict[str, torch.Tensor]]:
    """A Swin and a BERT, fused layer by layer, with deformable attention to three levels of the image."""
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

    swin = SwinConfig(
        image_size=64, patch_size=4, embed_dim=16, depths=[1, 1, 2, 1], num_heads=[2, 2, 4, 4], window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    bert = BertConfig(
        vocab_size=2048, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128
    )
    sizes = {f"{part}_{size}": count for part in ("encoder", "decoder") for size, count in LAYERS.items()}
    config = GroundingDinoConfig(
        backbone_config=swin, text_config=bert, num_queries=20, d_model=64, max_text_len=32, **sizes
    )
    ids = torch.tensor([[101, 5, 6, 1012, 7, 1012, 102]])  # two phrases
    return GroundingDinoForObjectDetection(config), {"pixel_values": torch.rand(1, 3, 64, 96), "input_ids": ids}


LAYERS = {"layers": 2, "ffn_dim": 128, "attention_heads": 4}


@pytest.mark.parametrize("kind", ["transient-global", "local"])
@torch.no_grad()
def test_long_t5_runs_whole(kind: str) -> None:
    torch.manual_seed(0)
    model, inputs = long_t5(kind)
    model = enliven(model.eval())
    eager = model(**inputs, use_cache=False)
    with tt_dynamo.record() as reports:
        ours = torch.compile(model, backend="ttnn")(**inputs, use_cache=False)
    assert [fallback for report in reports for fallback in report.fallbacks] == []
    assert len(reports) == 1
    for name in ("logits", "encoder_last_hidden_state"):
        assert pcc(ours[name], eager[name]) >= 0.99, name


@torch.no_grad()
def test_grounding_dino_runs_whole() -> None:
    torch.manual_seed(0)
    model, inputs = grounding_dino()
    model = enliven(model.eval())
    eager = model(**inputs)
    with tt_dynamo.record() as reports:
        ours = torch.compile(model, backend="ttnn")(**inputs)
    assert [fallback for report in reports for fallback in report.fallbacks] == []
    # Queries are ranked by their scores, and near ones may swap; what the encoder saw is ranked nowhere.
    for name in ("encoder_last_hidden_state_vision", "encoder_last_hidden_state_text"):
        assert pcc(ours[name], eager[name]) >= 0.99, name
    assert ours.logits.shape == eager.logits.shape and ours.pred_boxes.shape == eager.pred_boxes.shape
