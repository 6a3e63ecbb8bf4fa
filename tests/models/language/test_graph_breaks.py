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


class Counted(torch.nn.Module):
    """Experts that read how many tokens each has as Python numbers, as Ling and DeepSeek's own code do.

    x [tokens, 64] -> [tokens, 64]; each token goes through two of four experts.
    """

    def __init__(self, read: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.router = torch.nn.Linear(64, 4, bias=False)
        self.experts = torch.nn.ModuleList(torch.nn.Linear(64, 64) for _ in range(4))
        self.read = read

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2)
        counts = chosen.new_zeros(len(x), 4).scatter(1, chosen, 1).sum(0)
        order = chosen.view(-1).argsort()
        rows, start, parts = x[order // 2], 0, []
        for expert, count in zip(self.experts, self.read(counts), strict=True):
            if count:
                parts.append(expert(rows[start : start + count]))
                start += count
        found = torch.cat(parts)
        back = torch.empty_like(found)
        back[order] = found
        return (back.view(len(x), 2, -1) * weights[..., None]).sum(1)


@pytest.mark.parametrize("read", [torch.Tensor.tolist, lambda counts: counts.cpu().numpy()], ids=["tolist", "cpu"])
@torch.no_grad()
def test_experts_that_count_their_tokens_run_in_as_many_graphs(read: Callable[[torch.Tensor], Any]) -> None:
    torch.manual_seed(0)
    model = Counted(read).eval()
    # bfloat16 holds them, and no two experts are near
    x = torch.eye(64)[:12] * torch.arange(1, 13)[:, None] / 4
    model.router.weight.copy_(torch.randint(-4, 5, (4, 64)) + torch.arange(4)[:, None] / 4)
    expected, graphs = model(x), {}
    for backend in ("aot_eager", "ttnn"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        found = torch.compile(model, backend=backend)(x)
        graphs[backend] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        assert pcc(found, expected) >= 0.999
    assert graphs["ttnn"] == graphs["aot_eager"]


@pytest.mark.slow
@torch.no_grad()
def test_switch_runs_in_no_more_graphs() -> None:
    """An expert has a graph for each count of its tokens: a token that is near two experts may save one."""
    sizes = {"d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
    experts = {"num_experts": 4, "expert_capacity": 16, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
    config = transformers.SwitchTransformersConfig(vocab_size=256, decoder_start_token_id=0, **sizes, **experts)
    torch.manual_seed(0)
    model = enliven(transformers.SwitchTransformersForConditionalGeneration(config).eval())
    ids = {"input_ids": torch.randint(2, 256, (1, 24)), "decoder_input_ids": torch.randint(2, 256, (1, 8))}
    expected, counts = model(**ids, use_cache=False).logits, {}
    for backend in ("aot_eager", "ttnn"):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        logits = torch.compile(model, backend=backend)(**ids, use_cache=False).logits
        counters = torch._dynamo.utils.counters
        counts[backend] = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
        assert pcc(logits, expected) >= 0.99
    (graphs, breaks), (plain_graphs, plain_breaks) = counts["ttnn"], counts["aot_eager"]
    assert breaks == plain_breaks and graphs <= plain_graphs
