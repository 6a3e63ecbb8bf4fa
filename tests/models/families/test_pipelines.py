"""Pipelines of transformers over compiled models: what they answer in eager torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import tt_dynamo

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the hub's client when it is imported

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean_dynamo")]
BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
WORDS = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{number}" for number in range(60))]
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def enlivened(model: Any) -> Any:
    """The model with weights under which its answer depends on its input."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model.eval()


def compiled(model: Any) -> Any:
    model.forward = torch.compile(model.forward, backend="ttnn", options={"device": BOARD})
    return model


def words() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **special)


def answers(run: Any, model: Any) -> tuple[Any, Any, list[tt_dynamo.GraphReport]]:
    """In eager torch, and compiled with its reports."""
    eager = run(model)
    with tt_dynamo.record() as reports:
        ours = run(compiled(model))
    return eager, ours, list(reports)


def test_text_generation_writes_eager_s_words() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM, pipeline

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = enlivened(LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), num_key_value_heads=1, **sizes, **ENDS)))

    def run(model: Any) -> Any:
        generate = pipeline("text-generation", model=model, tokenizer=words())
        return generate(["w1 w2 w3 w4 w5"], min_new_tokens=5, max_new_tokens=5, do_sample=False, return_full_text=False)

    eager, ours, reports = answers(run, model)
    assert ours == eager and all(len(found[0]["generated_text"].split()) >= 3 for found in ours)
    reasons = [fallback.reason for report in reports for fallback in report.fallbacks]
    assert all("grows with every call" in reason for reason in reasons), "nothing else than the default cache"
    assert sum(report.device_programs for report in reports) > 20


def test_speech_recognition_hears_eager_s_letters(tmp_path: Path) -> None:
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        pipeline,
    )

    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = tmp_path / "vocab.json"
    vocabulary.write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    convolutions = {"conv_dim": (32, 32, 32), "conv_kernel": (10, 8, 4), "conv_stride": (5, 4, 4)}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Wav2Vec2Config(vocab_size=len(letters), **sizes, **convolutions, **positions, **ENDS)
    model = enlivened(Wav2Vec2ForCTC(config))
    wave = torch.randn(4000, generator=torch.Generator().manual_seed(1)).numpy()

    def run(model: Any) -> Any:
        parts = {"tokenizer": Wav2Vec2CTCTokenizer(str(vocabulary)), "feature_extractor": Wav2Vec2FeatureExtractor()}
        return pipeline("automatic-speech-recognition", model=model, **parts)(wave.copy())

    eager, ours, (report,) = answers(run, model)
    assert ours == eager and len(ours["text"]) > 5
    assert not report.fallbacks
