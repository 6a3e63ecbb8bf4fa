"""Decoders that lay out rotary embeddings, heads and norms otherwise: few launches a layer, and eager's answer."""

import os
from typing import Any

import pytest
import torch
from comparison import assert_close
from decoders import GROUPED, VOCABULARY, WIDTHS, enliven, prefill_and_decode, static_cache, tokens

import tt_dynamo

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
GPT = {"vocab_size": VOCABULARY, "n_embd": 128, "n_head": 4, "n_positions": 256, "rotary_dim": 16, "n_layer": 2}
ENDS = {"bos_token_id": 1, "eos_token_id": 2}
PROMPT, STEPS = 32, 3


def decoder(name: str, **sizes: Any) -> Any:
    import transformers

    config = getattr(transformers, f"{name}Config")(**sizes)
    return getattr(transformers, f"{name}ForCausalLM")(config)


MODELS = {
    "GPTJ": {**GPT, **ENDS},
    "CodeGen": {**GPT, **ENDS},
    "Persimmon": {**WIDTHS, "num_hidden_layers": 2},
    "Glm": {**GROUPED, "num_hidden_layers": 2, "head_dim": 32},
}


USUAL = ("GPTJ",)


@pytest.mark.usefixtures("clean_dynamo")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in MODELS]
)
def test_rotary_and_heads_take_few_launches(name: str) -> None:
    model = enliven(decoder(name, **MODELS[name]), embeddings=0.3).eval()
    ids = tokens(1, PROMPT + STEPS)
    compiled = torch.compile(model, backend="ttnn", options={"device": BOARD})
    with tt_dynamo.record() as reports:
        ours = prefill_and_decode(compiled, ids, PROMPT, static_cache(model, 64))
    eager = prefill_and_decode(model, ids, PROMPT, static_cache(model, 64))
    prefill, decode = reports
    for report, most in ((prefill, 22), (decode, 26)):
        assert not report.fallbacks, report.fallbacks
        layer = report.launches_per_layer()
        assert layer is not None and layer <= most
    for our_logits, logits in zip(ours, eager, strict=True):
        assert_close(our_logits, logits)
