"""Language models at reduced width and depth, and how tests run them: prefill, then one token after another.

Weights are random and seeded, large enough that attention and biases are heard. Nothing is downloaded.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import torch

import tt_dynamo

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by the hub's client when it is imported

VOCABULARY = 320
PROMPT = 32
STEPS = 64
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
WIDTHS = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
GROUPED = {**WIDTHS, "num_key_value_heads": 2}


@dataclasses.dataclass(frozen=True)
class Decoder:
    """One row of the table.

    build: number of layers -> model. graphs: how many graphs a prompt and `STEPS` single tokens compile to. prompt: its
    tokens. masked: whether it is given masks and positions, as generate() gives them; it breaks its graph otherwise.
    """

    build: Callable[[int], Any]
    graphs: int = 2
    prompt: int = PROMPT
    masked: bool = False


def llama(layers: int) -> Any:
    """Grouped queries, llama3 rotary embedding."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**GROUPED, num_hidden_layers=layers, rope_parameters=LLAMA3))


def mistral(window: int | None) -> Callable[[int], Any]:
    """Attention over the last `window` tokens; its cache is as long as the window at most."""

    def build(layers: int) -> Any:
        from transformers import MistralConfig, MistralForCausalLM

        return MistralForCausalLM(MistralConfig(**GROUPED, num_hidden_layers=layers, sliding_window=window))

    return build


def qwen2(layers: int) -> Any:
    """Biases of queries, keys and values."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**GROUPED, num_hidden_layers=layers))


def qwen3(layers: int) -> Any:
    """Queries and keys are normalized."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**GROUPED, num_hidden_layers=layers, head_dim=32))


def gemma2(layers: int) -> Any:
    """Soft-capped scores and logits, four norms a layer; every other layer attends to a window of 48 tokens."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(**GROUPED, num_hidden_layers=layers, head_dim=32, query_pre_attn_scalar=32, sliding_window=48)
    return Gemma2ForCausalLM(config)


def gpt2(layers: int) -> Any:
    """Learned positions, layer norms with biases, tanh gelu."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=128, n_layer=layers, n_head=4, n_positions=256,
        pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def phi3(layers: int) -> Any:
    """Queries, keys and values from one matrix; gate and up from one."""
    from transformers import Phi3Config, Phi3ForCausalLM

    return Phi3ForCausalLM(Phi3Config(**GROUPED, num_hidden_layers=layers))


def falcon(layers: int) -> Any:
    """One key-value head, attention and feedforward side by side."""
    from transformers import FalconConfig, FalconForCausalLM

    config = FalconConfig(
        vocab_size=VOCABULARY, hidden_size=128, num_hidden_layers=layers, num_attention_heads=4,
        pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    return FalconForCausalLM(config)


def opt(layers: int) -> Any:
    """Learned positions counted from the mask, relu, biases everywhere."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=VOCABULARY, hidden_size=128, word_embed_proj_dim=128, ffn_dim=256, num_hidden_layers=layers,
        num_attention_heads=4, max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    return OPTForCausalLM(config)


def gpt_neox(layers: int) -> Any:
    """Rotary embedding of a quarter of each head, attention and feedforward side by side."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(**WIDTHS, num_hidden_layers=layers))


DECODERS = {
    "llama": Decoder(llama),
    "mistral": Decoder(mistral(None)),
    "mistral, window of 128": Decoder(mistral(128)),
    "mistral, window of 48": Decoder(mistral(48), graphs=3),  # its cache before it is full, and from then on
    "mistral, prompt past the window": Decoder(mistral(48), prompt=80),
    "qwen2": Decoder(qwen2),
    "qwen3": Decoder(qwen3),
    "gemma2": Decoder(gemma2, graphs=3),
    "gpt2": Decoder(gpt2),
    "phi3": Decoder(phi3),
    "falcon": Decoder(falcon),
    "opt": Decoder(opt, masked=True),
    "gpt-neox": Decoder(gpt_neox),
}


def enliven(model: torch.nn.Module, embeddings: float = 1.0) -> torch.nn.Module:
    """Weights that make every part count: as initialized, residuals drown what attention and feedforward add.

    embeddings: the deviation of embedded tokens, which the residuals begin with.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() >= 2:
                embeds = "embed" in name or "wte" in name
                parameter.copy_(noise * (embeddings if embeds else parameter[0].numel() ** -0.5))
            elif name.endswith("bias"):
                parameter.copy_(noise * 0.2)
            else:
                parameter.add_(noise * 0.2)
    return model


def build(name: str, layers: int = 2) -> Any:
    return enliven(DECODERS[name].build(layers), embeddings=0.3).eval()


def tokens(batch: int, seq: int) -> torch.Tensor:
    """Token ids [batch, seq], none of them padding."""
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(2, VOCABULARY, (batch, seq), generator=generator)


def static_cache(model: Any, length: int) -> Any:
    from transformers import StaticCache

    return StaticCache(config=model.config, max_cache_len=length)


@torch.no_grad()
def prefill_and_decode(
    model: Callable[..., Any], ids: torch.Tensor, prompt: int, cache: Any, masked: bool = False
) -> list[torch.Tensor]:
    """Logits of the first `prompt` tokens in one call, then of each later token by itself: [batch, seq, vocabulary].

    masked: with the mask over the whole cache and the positions that generate() makes.
    """
    length = ids.shape[1]

    def call(start: int, end: int) -> torch.Tensor:
        given: dict[str, Any] = {}
        if masked:
            positions = torch.arange(start, end)
            given["attention_mask"] = torch.arange(length).le(positions[:, None]).expand(len(ids), 1, -1, -1)
            given["position_ids"] = positions.expand(len(ids), -1)
        return model(input_ids=ids[:, start:end], past_key_values=cache, use_cache=True, **given).logits

    return [call(0, prompt), *(call(at, at + 1) for at in range(prompt, length))]


def logits_in_few_launches(
    model: Any, ids: torch.Tensor, prompt: int, length: int, board: str, most: tuple[int, int]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Compiled and eager logits of each call over a static cache of `length`; nothing falls back, and a layer takes at
    most so many launches in prefill and in decode.
    """
    compiled = torch.compile(model, backend="ttnn", options={"device": board})
    with tt_dynamo.record() as reports:
        ours = prefill_and_decode(compiled, ids, prompt, static_cache(model, length))
    eager = prefill_and_decode(model, ids, prompt, static_cache(model, length))
    for report, launches in zip(reports, most, strict=True):
        assert not report.fallbacks, report.fallbacks
        layer = report.launches_per_layer()
        assert layer is not None and layer <= launches
    return list(zip(ours, eager, strict=True))
