"""What recurrences cost: what a chunk needs of itself is shared by all cores, its state goes from chunk to chunk."""

from __future__ import annotations

import pytest

from tt_dynamo.estimate.calls import estimate
from tt_dynamo.estimate.chip import chip_of
from tt_dynamo.estimate.tensor import Call, Tensor


def seconds(tokens: int, heads: int, width: int = 128, board: str = "n150") -> float:
    x, g = Tensor((1, tokens, heads * width)), Tensor((1, tokens, heads))
    out = Tensor((heads, tokens, width), "float32")
    cost = estimate(Call("ttnn.transformer.chunk_gated_delta_rule", (x, x, x, g, g), (out,)), chip_of(board))
    assert cost.family == "scan"
    return cost.seconds


def test_a_delta_rule_takes_time_by_its_chunks_and_little_by_its_heads() -> None:
    assert seconds(4096, 4) == pytest.approx(2 * seconds(2048, 4), rel=0.1)
    assert seconds(2048, 8) < 1.5 * seconds(2048, 4), "each head has cores of its own"
    assert seconds(2048, 64) > 1.5 * seconds(2048, 8)


def test_a_delta_rule_of_wide_heads_takes_more_and_a_faster_chip_less() -> None:
    assert seconds(2048, 16, 64) < seconds(2048, 16, 128) < 4.5 * seconds(2048, 16, 64)
    assert seconds(2048, 16, board="p150") < seconds(2048, 16)
