"""Models that carry a state from token to token: whole on the device, in calls that do not grow with the tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from comparison import pcc
from decoders import enliven

import tt_dynamo

pytestmark = pytest.mark.usefixtures("board_device", "clean_dynamo")

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 256}
TOKENS = 24


def recurrent_gemma() -> Any:
    config = transformers.RecurrentGemmaConfig(
        **{**SIZES, "num_hidden_layers": 3}, intermediate_size=192, num_attention_heads=2, num_key_value_heads=1,
        lru_width=64, attention_window_size=16,
    )  # fmt: skip
    return transformers.RecurrentGemmaForCausalLM(config)


def rwkv() -> Any:
    return transformers.RwkvForCausalLM(transformers.RwkvConfig(**SIZES, attention_hidden_size=64, context_length=128))


def mamba() -> Any:
    return transformers.MambaForCausalLM(transformers.MambaConfig(**SIZES, state_size=16))


def falcon_mamba() -> Any:
    return transformers.FalconMambaForCausalLM(transformers.FalconMambaConfig(**SIZES, state_size=16))


def mamba2() -> Any:
    config = transformers.Mamba2Config(**SIZES, num_heads=4, head_dim=32, state_size=32, n_groups=2, chunk_size=16)
    return transformers.Mamba2ForCausalLM(config)


def linear_attention(config: type, model: type) -> Any:
    heads = {"linear_num_value_heads": 4, "linear_num_key_heads": 2}
    widths = {"linear_key_head_dim": 32, "linear_value_head_dim": 32, "head_dim": 32, "intermediate_size": 128}
    layers = {"layer_types": ["linear_attention"] * 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    return model(config(**SIZES, **heads, **widths, **layers, mlp_only_layers=[0, 1]))


def qwen3_next() -> Any:
    return linear_attention(transformers.Qwen3NextConfig, transformers.Qwen3NextForCausalLM)


def qwen3_5() -> Any:
    return linear_attention(transformers.Qwen3_5TextConfig, transformers.Qwen3_5ForCausalLM)


def xlstm() -> Any:
    """Chunks of tokens by products, and a loop over the chunks."""
    kernels = {"chunkwise_kernel": "chunkwise--native_autograd", "sequence_kernel": "native_sequence__native"}
    config = transformers.xLSTMConfig(
        **{**SIZES, "hidden_size": 128}, num_blocks=2, num_heads=2, **kernels, step_kernel="native", chunk_size=8
    )
    return transformers.xLSTMForCausalLM(config)


LAUNCHES = {
    mamba: 42, falcon_mamba: 46, mamba2: 40, recurrent_gemma: 48, rwkv: 40, qwen3_next: 55, qwen3_5: 38,
    xlstm: 161,
}  # a layer  # fmt: skip
SLOW = (falcon_mamba, recurrent_gemma, qwen3_next, qwen3_5, xlstm)


@pytest.mark.parametrize(
    "build", [pytest.param(build, id=build.__name__, marks=[pytest.mark.slow] * (build in SLOW)) for build in LAUNCHES]
)
@torch.no_grad()
def test_a_prompt_runs_whole_in_few_launches_a_layer(build: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    model = enliven(build().eval())
    ids = torch.randint(0, 256, (1, TOKENS))
    expected = model(ids, use_cache=False).logits
    with tt_dynamo.record() as reports:
        logits = torch.compile(model, backend="ttnn")(ids, use_cache=False).logits
    (report,) = reports
    assert not report.fallbacks
    assert report.device_programs <= LAUNCHES[build] * model.config.num_hidden_layers
    assert pcc(logits, expected) >= 0.99
