"""Mixtures of experts of transformers at reduced width, each with weights that count."""

from __future__ import annotations

import os
from typing import Any

import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the hub's client when it is imported

HIDDEN = 64
SPELLINGS = ("grouped_mm", "batched_mm")


def block(name: str, spelling: str = "grouped_mm", **other_sizes: int) -> Any:
    """The router and the experts of one layer; hidden states [batch, seq, 64] are its input."""
    import transformers
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
    from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeMoE
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP
    from transformers.models.llama4.modeling_llama4 import Llama4TextMoe
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
    from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

    two, wide, narrow = {"num_experts_per_tok": 2}, {"intermediate_size": 96}, {"moe_intermediate_size": 32}
    routed = {**two, **wide, **narrow, "n_routed_experts": 8}
    made: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "mixtral": (MixtralSparseMoeBlock, transformers.MixtralConfig, {**two, **wide, "num_local_experts": 4}),
        "qwen3": (Qwen3MoeSparseMoeBlock, transformers.Qwen3MoeConfig, {**two, **narrow, "num_experts": 8}),
        "olmoe": (OlmoeSparseMoeBlock, transformers.OlmoeConfig, {**two, **wide, "num_experts": 8}),
        "gpt-oss": (GptOssMLP, transformers.GptOssConfig, {**two, "num_local_experts": 4, "intermediate_size": 64}),
        "deepseek-v3": (DeepseekV3MoE, transformers.DeepseekV3Config, {**routed, "n_group": 4, "topk_group": 2}),
        "glm4": (Glm4MoeMoE, transformers.Glm4MoeConfig, routed),
        "llama4": (Llama4TextMoe, transformers.Llama4TextConfig, {**wide, "num_local_experts": 4}),
    }
    kind, configure, sizes = made[name]
    config = configure(hidden_size=HIDDEN, **{**sizes, **other_sizes})
    config._experts_implementation = spelling
    model = kind(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
    return model


def hidden(tokens: int) -> torch.Tensor:
    """Hidden states [1, tokens, 64], which bfloat16 holds."""
    x = torch.randn(1, tokens, HIDDEN, generator=torch.Generator().manual_seed(tokens))
    return x.bfloat16().float()
