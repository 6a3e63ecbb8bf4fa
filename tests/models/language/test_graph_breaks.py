"""Models that break their graphs do so as often for any backend: Dynamo traces nothing of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from comparison import pcc
from decoders import VOCABULARY, enliven, gpt_neox, opt, prefill_and_decode, static_cache, tokens

pytestmark = pytest.mark.usefixtures("board_device", "clean_dynamo")

PROMPT = 8
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}


def mpt(layers: int) -> Any:
    """Its attention reads the length of the cache as a Python number."""
    config = transformers.MptConfig(
        d_model=64, n_heads=2, n_layers=layers, max_seq_len=64, vocab_size=VOCABULARY, **SPECIAL
    )
    return transformers.MptForCausalLM(config)


def xglm(layers: int) -> Any:
    config = transformers.XGLMConfig(
        vocab_size=VOCABULARY, d_model=64, ffn_dim=128, num_layers=layers, attention_heads=2,
        max_position_embeddings=64, **SPECIAL,
    )  # fmt: skip
    return transformers.XGLMForCausalLM(config)


def biogpt(layers: int) -> Any:
    config = transformers.BioGptConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=layers, num_attention_heads=2,
        max_position_embeddings=64, **SPECIAL,
    )  # fmt: skip
    return transformers.BioGptForCausalLM(config)


def dbrx(layers: int) -> Any:
    """Each expert takes as many tokens as were routed to it."""
    config = transformers.DbrxConfig(
        d_model=64, n_heads=2, n_layers=layers, max_seq_len=64, vocab_size=VOCABULARY,
        attn_config={"kv_n_heads": 1, "clip_qkv": 8.0, "rope_theta": 1e4},
        ffn_config={"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2}, **SPECIAL,
    )  # fmt: skip
    return transformers.DbrxForCausalLM(config)


def bloom(layers: int) -> Any:
    config = transformers.BloomConfig(vocab_size=VOCABULARY, hidden_size=64, n_layer=layers, n_head=2, **SPECIAL)
    return transformers.BloomForCausalLM(config)


MODELS = [
    pytest.param(build, id=build.__name__, marks=() if build is mpt else pytest.mark.slow)
    for build in (mpt, opt, xglm, biogpt, dbrx, bloom, gpt_neox)
]


@pytest.mark.parametrize("build", MODELS)
def test_as_many_graphs_as_for_any_backend(build: Callable[[int], Any]) -> None:
    model = enliven(build(1), embeddings=0.3).eval()
    ids = tokens(2, PROMPT + 2)
    logits, counts = {}, {}
    for backend in ("aot_eager", "ttnn"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        compiled = torch.compile(model, backend=backend)
        logits[backend] = prefill_and_decode(compiled, ids, PROMPT, static_cache(model, len(ids[0])))
        counters = torch._dynamo.utils.counters
        counts[backend] = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    assert counts["ttnn"] == counts["aot_eager"]
    for ours, eager in zip(logits["ttnn"], logits["aot_eager"], strict=True):
        assert pcc(ours, eager) >= 0.99
