"""Mixtures of experts: eager's answer without fallbacks, and few tokens read their experts' weights alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comparison import pcc, relative_error
from compiled import compiled
from mixtures import SPELLINGS, block, hidden

from tt_dynamo.report.table import size_text

EVERY = ("mixtral", "qwen3", "olmoe", "gpt-oss", "deepseek-v3", "glm4", "llama4")


def first(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


def run(model: Any, x: torch.Tensor) -> Any:
    """The report of a model that computes what eager torch does, all of it on the device.

    In bfloat16 a close choice between experts may fall otherwise: one token in ten may have another.
    """
    ours, report = compiled(model, x)
    with torch.no_grad():
        eager = model(x)
    assert not report.fallbacks, report.fallbacks
    tokens = [*zip(first(ours).reshape(-1, 64), first(eager).reshape(-1, 64), strict=True)]
    right = [pcc(*token) >= 0.999 and relative_error(*token) <= 0.03 for token in tokens]
    assert right.count(False) <= len(tokens) // 10
    return report


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_token_reads_its_experts_weights_alone(spelling: str) -> None:
    report = run(block("qwen3", spelling), hidden(1))
    assert report.launches["ttnn.sparse_matmul"] > 0
    assert report.expert_bytes == 2 * 8 * 3 * 64 * 32
    assert report.expert_bytes_read == report.expert_bytes * 2 / 8
    assert f"{size_text(report.expert_bytes_read)} of {size_text(report.expert_bytes)} read per run" in str(report)


def test_experts_with_biases_and_a_gate_of_their_own() -> None:
    report = run(block("gpt-oss"), hidden(1))
    assert report.expert_bytes_read == report.expert_bytes / 2


def test_experts_of_tokens_that_are_scored_first() -> None:
    report = run(block("llama4"), hidden(1))
    assert report.expert_bytes_read == report.expert_bytes / 4


def test_few_tokens_read_their_experts_weights_alone() -> None:
    report = run(block("qwen3"), hidden(3))
    assert report.expert_bytes_read == report.expert_bytes * 6 / 8


@pytest.mark.parametrize("name", EVERY)
def test_many_tokens(name: str) -> None:
    report = run(block(name), hidden(40))
    assert "ttnn.sparse_matmul" not in report.launches


def test_experts_too_wide_to_lie_side_by_side_are_summed_after_their_products() -> None:
    report = run(block("qwen3", num_experts=16, moe_intermediate_size=2048), hidden(40))
    assert not report.decomposed
    assert [choice.candidate for choice in report.choices if choice.operation == "mix_experts"] == ["each"]


@pytest.mark.parametrize("tokens", [1, 40])
def test_experts_without_tokens(tokens: int) -> None:
    """All tokens choose the same two of eight experts."""
    model = block("qwen3")
    with torch.no_grad():
        model.gate.weight.zero_()
        model.gate.weight[3] = model.gate.weight[6] = 1.0
        model.gate.weight[6] *= 0.5
    run(model, hidden(tokens).abs())


def test_what_is_ranked_and_gathered_on_the_host_keeps_its_digits() -> None:
    x, y = torch.rand(4, 9) + 1e-4, torch.rand(4, 9) + 1e-4
    ours, report = compiled(lambda x, y: y.gather(1, x.topk(3)[1]), x, y)
    assert torch.equal(ours, y.gather(1, x.topk(3)[1]))
    assert not report.launches
