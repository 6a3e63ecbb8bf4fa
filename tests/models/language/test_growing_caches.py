"""Caches that grow by a token at every call, as `generate()` makes them: all lengths run the same programs.

Models with convolutions or state spaces keep states of a fixed size beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from comparison import pcc, relative_error
from decoders import GROUPED, enliven, llama, tokens

import tt_dynamo

pytestmark = pytest.mark.usefixtures("board_device", "clean_dynamo")

PROMPT = 8
STEPS = 8
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 64, "mamba_n_groups": 1, "mamba_d_state": 16, "mamba_chunk_size": 16}


def lfm2() -> Any:
    config = transformers.Lfm2Config(**GROUPED, num_hidden_layers=2, layer_types=["conv", "full_attention"])
    return transformers.Lfm2ForCausalLM(config)


def bamba() -> Any:
    config = transformers.BambaConfig(**GROUPED, num_hidden_layers=2, attn_layer_indices=[1], **MAMBA)
    return transformers.BambaForCausalLM(config)


def falcon_h1() -> Any:
    config = transformers.FalconH1Config(**GROUPED, num_hidden_layers=1, head_dim=32, mamba_d_ssm=256, **MAMBA)
    return transformers.FalconH1ForCausalLM(config)


def jamba() -> Any:
    config = transformers.JambaConfig(
        **GROUPED, num_hidden_layers=2, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
        expert_layer_offset=1, num_experts=2, use_mamba_kernels=False, mamba_d_state=8,
    )  # fmt: skip
    return transformers.JambaForCausalLM(config)


def zamba2() -> Any:
    config = transformers.Zamba2Config(
        **{**GROUPED, "num_key_value_heads": 4}, num_hidden_layers=2, layers_block_type=["mamba", "hybrid"],
        mamba_headdim=64, n_mamba_heads=4, mamba_d_state=16, mamba_ngroups=1, chunk_size=16, use_mem_rope=True,
        num_mem_blocks=1, adapter_rank=8,
    )  # fmt: skip
    return transformers.Zamba2ForCausalLM(config)


def nemotron_h() -> Any:
    config = transformers.NemotronHConfig(
        **GROUPED, layers_block_type=["mamba", "attention", "moe"], head_dim=32, mamba_num_heads=4, mamba_head_dim=64,
        ssm_state_size=16, n_groups=1, chunk_size=16, n_routed_experts=4, moe_intermediate_size=64,
        moe_shared_expert_intermediate_size=64,
    )  # fmt: skip
    return transformers.NemotronHForCausalLM(config)


def recurrent_gemma() -> Any:
    config = transformers.RecurrentGemmaConfig(**GROUPED, num_hidden_layers=3, lru_width=128, attention_window_size=64)
    return transformers.RecurrentGemmaForCausalLM(config)


MODELS = [
    pytest.param(build, id=build.__name__, marks=pytest.mark.slow)
    for build in (lfm2, bamba, falcon_h1, jamba, zamba2, nemotron_h, recurrent_gemma)
]


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor, after_each: Callable[[], None] = lambda: None) -> list[torch.Tensor]:
    """Of a prompt and of each later token by itself, called as `generate()` calls."""
    cache, results = transformers.DynamicCache(config=model.config), []
    for start, end in [(0, PROMPT), *((at, at + 1) for at in range(PROMPT, ids.shape[1]))]:
        given = {"input_ids": ids[:, start:end], "position_ids": torch.arange(start, end).expand(len(ids), -1)}
        results.append(model(**given, past_key_values=cache, use_cache=True).logits)
        after_each()
    return results


@pytest.mark.parametrize("build", MODELS)
def test_steps_compile_nothing_once_their_length_is_symbolic(build: Callable[[], Any]) -> None:
    model = enliven(build(), embeddings=0.3).eval()
    ids = tokens(2, PROMPT + STEPS)
    eager, compiled_by_now = logits(model, ids), []
    torch._dynamo.utils.counters.clear()
    with tt_dynamo.record() as reports:
        ours = logits(torch.compile(model, backend="ttnn"), ids, lambda: compiled_by_now.append(len(reports)))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3  # a prompt, a step, and steps of any length
    assert len(set(compiled_by_now[2:])) == 1
    for mine, theirs in zip(ours, eager, strict=True):
        assert pcc(mine, theirs) >= 0.99
        assert relative_error(mine, theirs) <= 0.1


def test_the_report_says_what_reads_a_growing_cache() -> None:
    model = enliven(llama(1), embeddings=0.3).eval()
    with tt_dynamo.record() as reports:
        logits(torch.compile(model, backend="ttnn"), tokens(2, PROMPT + 3))
    _, _, growing, *programs = reports
    assert growing.device_nodes == 0 and {"keys", "values"} <= {fallback.node for fallback in growing.fallbacks}
    assert all("static cache" in fallback.reason for fallback in growing.fallbacks)
    assert len(programs) == 2 and not any(program.fallbacks for program in programs)
