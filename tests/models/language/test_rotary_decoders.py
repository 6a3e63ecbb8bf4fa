"""Decoders that lay out rotary embeddings, heads and norms otherwise: few launches a layer, and eager's answer."""

import os
from typing import Any

import pytest
from comparison import assert_close
from decoders import GROUPED, VOCABULARY, WIDTHS, enliven, logits_in_few_launches, tokens

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
    for our_logits, logits in logits_in_few_launches(model, ids, PROMPT, 64, BOARD, (22, 26)):
        assert_close(our_logits, logits)
