"""Decoders of several streams (Gemma 3n): few launches a layer, and eager's answer."""

import os
from typing import Any

import pytest
import torch
from comparison import pcc
from decoders import GROUPED, VOCABULARY, enliven, logits_in_few_launches, tokens

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
PROMPT, STEPS = 64, 3


def gemma3n(layers: int) -> Any:
    """Four streams, inputs of each layer, low-rank residuals (Laurel), norms of queries, keys and values."""
    from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

    config = Gemma3nTextConfig(
        **GROUPED, num_hidden_layers=layers, head_dim=32, vocab_size_per_layer_input=VOCABULARY,
        hidden_size_per_layer_input=32, laurel_rank=32, num_kv_shared_layers=0,
        layer_types=["full_attention"] * layers, activation_sparsity_pattern=[0.0] * layers,
    )  # fmt: skip
    torch.manual_seed(0)
    return enliven(Gemma3nForCausalLM(config), embeddings=0.3).eval()


@pytest.mark.usefixtures("clean_dynamo")
def test_streams_take_few_launches_a_layer() -> None:
    model, ids = gemma3n(2), tokens(1, PROMPT + STEPS)
    for our_logits, logits in logits_in_few_launches(model, ids, PROMPT, 128, BOARD, (48, 49)):
        assert pcc(our_logits, logits) >= 0.999
