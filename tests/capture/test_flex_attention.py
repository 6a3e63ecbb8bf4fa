"""Flex attention: attention with a function of the scores, which is compiled with the graph around it."""

from __future__ import annotations

import pytest
import torch
from comparison import check
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

pytestmark = [
    pytest.mark.usefixtures("clean_dynamo", "board_device"),
    pytest.mark.filterwarnings("ignore:.*flex_attention called without.*", "ignore:return_lse is deprecated.*"),
]


def heads() -> tuple[Tensor, ...]:
    return tuple(torch.randn(1, 2, 128, 32) for _ in range(3))


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return flex_attention(q.relu(), k, v) @ v.transpose(-1, -2)


def with_distances(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: score + (i - j) / 8)


def with_a_bias_of_the_graph(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    bias = q[0, 0, :, 0] * 2
    return flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: score + bias[i])


def with_a_causal_mask(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, 128, 128, device="cpu")
    return flex_attention(q, k, v, block_mask=mask)


def with_its_logarithms(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return flex_attention(q, k, v, return_lse=True)


@pytest.mark.parametrize(
    "model", [plain_attention, with_distances, with_a_bias_of_the_graph, with_a_causal_mask, with_its_logarithms]
)
def test_flex_attention_runs_on_the_device(model) -> None:
    (report,) = check(model, heads, options={"fallback": "error"})
    if model is not with_its_logarithms:
        assert "scaled_dot_product_attention" in report.code
