"""Mixtures of experts as transformers spells them are found, and nothing of their sorting and counting is left."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captured import Captured, capture
from mixtures import SPELLINGS, block, hidden

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.experts import fuse_experts

PAIRS = (aten.sort.default, aten.histc.default, aten.index_put.default, aten.index.Tensor, aten.bmm.default)


def fused(name: str, tokens: int, spelling: str = "grouped_mm", dtype: torch.dtype = torch.float32) -> Captured:
    graph = capture(block(name, spelling).to(dtype), hidden(tokens).to(dtype))
    assert graph.apply(fuse_experts, exact=False) == 1
    assert not graph.calls(*PAIRS)
    return graph


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", ["mixtral", "qwen3", "gpt-oss"])
def test_one_token_is_multiplied_by_its_experts_alone(name: str, spelling: str) -> None:
    products = fused(name, 1, spelling).calls(operators.expert_linear)
    assert [len(node.args) > 3 and node.args[3] is not None for node in products] == [True] * 3


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", ["mixtral", "qwen3", "gpt-oss"])
def test_many_tokens_are_multiplied_by_all_experts(name: str, spelling: str) -> None:
    graph = fused(name, 9, spelling)
    assert all(node.args[3] is None for node in graph.calls(operators.expert_linear))
    assert len(graph.calls(operators.expert_linear)) == 2
    graph.only(operators.mix_experts)


def test_few_tokens_are_read_once_for_each_of_their_experts() -> None:
    graph = fused("qwen3", 3)
    first = graph.calls(operators.expert_linear)[0]
    assert first.meta["val"].shape[:2] == (6, 1)


@pytest.mark.parametrize("tokens", [1, 3])
def test_few_tokens_that_are_scored_first_are_multiplied_by_their_experts_alone(tokens: int) -> None:
    products = fused("llama4", tokens).calls(operators.expert_linear)
    assert [node.meta["val"].shape[:2] for node in products] == [(tokens, 1)] * 3


def test_many_tokens_that_are_scored_first_are_products_already() -> None:
    graph = capture(block("llama4"), hidden(9))
    assert fuse_experts(graph.graph, graph.context) == 0
    assert len(graph.calls(aten.bmm.default)) == 2


def test_bfloat16_has_its_own_grouped_product() -> None:
    graph = capture(block("mixtral").bfloat16(), hidden(9).bfloat16())
    assert graph.calls(aten._grouped_mm.default)
    assert fuse_experts(graph.graph, graph.context) == 1
    assert not graph.calls(aten._grouped_mm.default)


def test_even_and_odd_columns_are_products_by_those_of_the_weight() -> None:
    *halves, _ = fused("gpt-oss", 1).calls(operators.expert_linear)
    assert {product.args[1].args[1:] for product in halves} == {(2, 0, 128, 2), (2, 1, 128, 2)}
    assert all(product.args[2].args[1:] == product.args[1].args[1:] for product in halves)  # and of the bias


def test_experts_that_no_ranking_gave_are_left_alone() -> None:
    experts = block("mixtral").experts

    def chosen(x: Any, numbers: Any, weights: Any) -> Any:
        return experts(x, numbers, weights)

    graph = capture(chosen, hidden(5)[0], torch.randint(4, (5, 2)), torch.rand(5, 2))
    assert fuse_experts(graph.graph, graph.context) == 0


def test_pairs_that_something_else_reads_in_their_order_are_left_alone() -> None:
    """A norm of each pair is no elementwise operation."""
    model = block("mixtral")
    model.experts.act_fn = torch.nn.LayerNorm(model.experts.down_proj.shape[2])
    graph = capture(model, hidden(9))
    assert fuse_experts(graph.graph, graph.context) == 0
