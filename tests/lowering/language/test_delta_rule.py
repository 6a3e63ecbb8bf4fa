"""Gated delta rules, as models spell them: one kernel where TTNN has it, products by chunks elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from compiled import calls, close, random, without_dynamo
from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule

Tensor = torch.Tensor
HEADS = 4


def rule(key_heads: int, head_dim: int) -> Callable[..., tuple[Tensor, Tensor]]:
    def forward(query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        heads = (x.relu().unflatten(-1, (-1, head_dim)) for x in (query, key, value))
        output, state = torch_chunk_gated_delta_rule(
            *heads, -g.sigmoid() / 8, beta.sigmoid(), output_final_state=True, use_qk_l2norm_in_kernel=True
        )
        return output.flatten(2), state

    return forward


def operands(tokens: int, key_heads: int, head_dim: int) -> tuple[Tensor, ...]:
    widths = (key_heads * head_dim, key_heads * head_dim, HEADS * head_dim, HEADS, HEADS)
    return tuple(random(2, tokens, width) for width in widths)


@pytest.mark.parametrize(("tokens", "key_heads", "head_dim"), [(64, 2, 32), (40, 4, 64)])
def test_a_gated_delta_rule_is_one_kernel(tokens: int, key_heads: int, head_dim: int) -> None:
    function, inputs = rule(key_heads, head_dim), operands(tokens, key_heads, head_dim)
    outputs, report = without_dynamo(function, *inputs)
    assert not report.fallbacks
    made = calls(report)
    assert made.count("transformer.chunk_gated_delta_rule") == 1 and "matmul" not in made
    assert made.count("pad") == (5 if tokens % 32 else 0)
    close(outputs, function(*inputs), roundings=6, cancels=True)


def test_what_ttnn_refuses_are_products_by_chunks() -> None:
    function, inputs = rule(2, 16), operands(40, 2, 16)
    outputs, report = without_dynamo(function, *inputs)
    assert not report.fallbacks
    assert any("do not fill tiles" in found.reason for found in report.decomposed)
    close(outputs, function(*inputs), roundings=6, cancels=True)
