"""Mixtures of experts, prefill and decode with a static cache: eager's logits, all of it on the device.

A decode step reads the weights of its experts alone. In bfloat16 a close choice between experts may fall otherwise, so
logits are as close to those of eager float32 as 0.99, or as eager bfloat16's are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparison import pcc
from decoders import GROUPED, VOCABULARY, WIDTHS, enliven, prefill_and_decode, static_cache, tokens

import tt_dynamo

PROMPT, STEPS = 20, 8
FEW = {"num_hidden_layers": 1, "head_dim": 32}
ROUTED = {"n_routed_experts": 16, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "first_k_dense_replace": 0}


def mixtral() -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(MixtralConfig(**GROUPED, **FEW, num_local_experts=8, num_experts_per_tok=2))


def qwen3() -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    sizes = {"num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 64}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**GROUPED, **FEW, **sizes))


def olmoe() -> Any:
    from transformers import OlmoeConfig, OlmoeForCausalLM

    return OlmoeForCausalLM(OlmoeConfig(**WIDTHS, num_hidden_layers=1, num_experts=16, num_experts_per_tok=4))


def gpt_oss() -> Any:
    """Biases, a clamped gate of even and odd columns, attention sinks."""
    from transformers import GptOssConfig, GptOssForCausalLM

    sizes = {"num_local_experts": 8, "num_experts_per_tok": 2, "layer_types": ["full_attention"]}
    return GptOssForCausalLM(GptOssConfig(**GROUPED, **FEW, **sizes))


def deepseek_v3() -> Any:
    """Groups of experts are chosen first, by scores with a bias; latent attention; experts that all tokens share."""
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    latent = {"q_lora_rank": 64, "kv_lora_rank": 64, "qk_rope_head_dim": 32, "qk_nope_head_dim": 32, "v_head_dim": 32}
    config = DeepseekV3Config(**WIDTHS, **ROUTED, **latent, num_hidden_layers=1, n_group=4, topk_group=2)
    return DeepseekV3ForCausalLM(config)


def glm4() -> Any:
    from transformers import Glm4MoeConfig, Glm4MoeForCausalLM

    return Glm4MoeForCausalLM(Glm4MoeConfig(**GROUPED, **FEW, **ROUTED))


def llama4() -> Any:
    """Queries and keys turn by products of complex numbers."""
    from transformers import Llama4ForCausalLM, Llama4TextConfig

    sizes = {"num_local_experts": 8, "num_experts_per_tok": 1, "intermediate_size": 64, "intermediate_size_mlp": 64}
    return Llama4ForCausalLM(Llama4TextConfig(**{**GROUPED, **FEW, **sizes}, moe_layers=[0]))


def deepseek_v2() -> Any:
    """Latent attention as V3's, turned by products of complex numbers."""
    from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

    latent = {"q_lora_rank": 64, "kv_lora_rank": 64, "qk_rope_head_dim": 32, "qk_nope_head_dim": 32, "v_head_dim": 32}
    return DeepseekV2ForCausalLM(DeepseekV2Config(**WIDTHS, **ROUTED, **latent, num_hidden_layers=1))


MIXTURES: dict[str, tuple[Callable[[], Any], float]] = {  # and the experts of a token, of all
    "mixtral": (mixtral, 2 / 8),
    "qwen3": (qwen3, 4 / 16),
    "olmoe": (olmoe, 4 / 16),
    "gpt-oss": (gpt_oss, 2 / 8),
    "deepseek-v3": (deepseek_v3, 2 / 16),
    "glm4": (glm4, 2 / 16),
    "llama4": (llama4, 1 / 8),
    "deepseek-v2": (deepseek_v2, 2 / 16),
}
USUAL = ("mixtral",)
ROWS = [pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in MIXTURES]


@pytest.mark.parametrize("name", ROWS)
def test_a_step_reads_the_experts_of_its_token_alone(name: str) -> None:
    build, share = MIXTURES[name]
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = enliven(build(), embeddings=0.3).eval()
    ids = tokens(1, PROMPT + STEPS)
    half = copy.deepcopy(model).bfloat16()
    eager, rounded = (prefill_and_decode(m, ids, PROMPT, static_cache(m, 64)) for m in (model, half))
    with tt_dynamo.record() as reports:
        ours = prefill_and_decode(torch.compile(model, backend="ttnn"), ids, PROMPT, static_cache(model, 64))
    for step, (logits, exact, bfloat16) in enumerate(zip(ours, eager, rounded, strict=True)):
        assert logits.shape == (1, PROMPT if step == 0 else 1, VOCABULARY)
        assert pcc(logits, exact) >= min(0.99, pcc(bfloat16.float(), exact)), step
    assert [report.fallbacks for report in reports] == [[], []]
    prefill, step = reports
    assert (prefill.phase, step.phase) == ("prefill", "decode")
    assert 0 < step.expert_bytes_read <= share * 1.1 * step.expert_bytes
    # Llama 4 has every expert compute all tokens of a prompt: no choice is read there.
    assert prefill.expert_bytes == (0 if name == "llama4" else step.expert_bytes)


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["batched_mm", "eager"])
@pytest.mark.parametrize("name", ["mixtral", "qwen3"])
def test_experts_that_transformers_writes_otherwise_give_the_same(name: str, implementation: str) -> None:
    build, share = MIXTURES[name]
    torch.manual_seed(0)
    torch._dynamo.reset()
    model = enliven(build(), embeddings=0.3).eval()
    model.set_experts_implementation(implementation)
    ids = tokens(1, PROMPT + 2)
    eager = prefill_and_decode(model, ids, PROMPT, static_cache(model, 64))
    with tt_dynamo.record() as reports:
        ours = prefill_and_decode(torch.compile(model, backend="ttnn"), ids, PROMPT, static_cache(model, 64))
    assert min(pcc(a, b) for a, b in zip(ours, eager, strict=True)) >= 0.99
    assert not any(report.fallbacks for report in reports)
    if implementation == "batched_mm":  # the other one asks torch which experts have tokens, so its graphs end there
        _, step = reports
        assert 0 < step.expert_bytes_read <= share * 1.1 * step.expert_bytes
