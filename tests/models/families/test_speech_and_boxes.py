"""SpeechT5 and OWL-ViT: no fallbacks, though a prenet draws random numbers even in inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from comparison import pcc

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

Built = tuple[Any, dict[str, torch.Tensor]]


def speech_config() -> Any:
    return transformers.SpeechT5Config(
        vocab_size=40, hidden_size=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=128, decoder_ffn_dim=128, conv_dim=(32, 32, 32),
        conv_stride=(5, 4, 2), conv_kernel=(10, 4, 2), num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
        speech_decoder_prenet_units=32, num_mel_bins=20, speaker_embedding_dim=16, speech_decoder_postnet_units=32,
        speech_decoder_postnet_layers=2, max_speech_positions=200, max_text_positions=100,
    )  # fmt: skip


def text_to_speech() -> Built:
    frames, speaker = torch.randn(1, 8, 20), torch.randn(1, 16)
    given = {"decoder_input_values": frames, "speaker_embeddings": speaker, "input_ids": torch.randint(0, 40, (1, 12))}
    return transformers.SpeechT5ForTextToSpeech(speech_config()), given


def speech_to_text() -> Built:
    given = {"input_values": torch.randn(1, 1600), "decoder_input_ids": torch.randint(0, 40, (1, 6))}
    return transformers.SpeechT5ForSpeechToText(speech_config()), given


def owl_vit() -> Built:
    sizes = {"intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.OwlViTConfig(
        text_config={**sizes, "hidden_size": 32, "vocab_size": 99, "max_position_embeddings": 16},
        vision_config={**sizes, "hidden_size": 64, "image_size": 64, "patch_size": 16}, projection_dim=32,
    )  # fmt: skip
    given = {"input_ids": torch.randint(1, 99, (2, 16)), "pixel_values": torch.randn(1, 3, 64, 64)}
    return transformers.OwlViTForObjectDetection(config), given


@pytest.mark.parametrize(
    ("build", "outputs"),
    [
        pytest.param(text_to_speech, ["spectrogram", "encoder_last_hidden_state"], id="text to speech"),
        pytest.param(speech_to_text, ["logits"], id="speech to text"),
        pytest.param(owl_vit, ["logits", "pred_boxes", "class_embeds"], id="owl-vit"),
    ],
)
@torch.no_grad()
def test_nothing_falls_back(build: Callable[[], Built], outputs: list[str]) -> None:
    model, given = build()
    model.eval()
    torch.manual_seed(1)
    eager = model(**given)
    torch.manual_seed(1)
    with tt_dynamo.record() as reports:
        ours = torch.compile(model, backend="ttnn")(**given)
    (report,) = reports
    assert report.fallbacks == []
    for name in outputs:
        assert pcc(ours[name], eager[name]) >= 0.99, name


@pytest.mark.slow
@torch.no_grad()
def test_speech_is_generated_as_in_eager_torch() -> None:
    model, given = text_to_speech()
    model.eval()
    arguments = {"speaker_embeddings": given["speaker_embeddings"], "threshold": 2.0, "maxlenratio": 0.5}
    torch.manual_seed(1)
    eager = model.generate_speech(given["input_ids"], **arguments)
    torch.manual_seed(1)
    for part in (model.speecht5.encoder, model.speecht5.decoder.prenet):  # the layers' cache grows with every call
        part.compile(backend="ttnn")
    with tt_dynamo.record() as reports:
        ours = model.generate_speech(given["input_ids"], **arguments)
    assert reports and not [fallback for report in reports for fallback in report.fallbacks]
    assert ours.shape == eager.shape
    assert pcc(ours, eager) >= 0.99
