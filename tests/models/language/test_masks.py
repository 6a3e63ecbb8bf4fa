"""Attention masks as models write them, with rows that are masked whole, and numbers at the ends of the range.

A row masked with -inf throughout is NaN or zero in eager torch; one masked with the smallest float32 is uniform.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from comparison import assert_same, check

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

SMALLEST = torch.finfo(torch.float32).min
Mask = Callable[[torch.Tensor], torch.Tensor]

MASKS: dict[str, Mask] = {
    "boolean": lambda keep: keep.bool(),
    "-inf": lambda keep: torch.where(keep.bool(), 0.0, -torch.inf),
    "filled with -inf": lambda keep: torch.zeros_like(keep).masked_fill(keep == 0, -torch.inf),
    "the smallest float32": lambda keep: torch.where(keep.bool(), 0.0, SMALLEST),
    "filled with the smallest float32": lambda keep: torch.zeros_like(keep).masked_fill(keep == 0, SMALLEST),
    "times the smallest float32": lambda keep: (1.0 - keep) * SMALLEST,
    "times -1e9": lambda keep: (1.0 - keep) * -1e9,
    "times -10000": lambda keep: (1.0 - keep) * -10000.0,
}


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    """Queries [3, 2, 8, 32] and which of 8 keys to keep, for each of 3: the first 5, all, and none."""
    keep = torch.ones(3, 1, 1, 8)
    keep[0, ..., 5:] = 0
    keep[2] = 0
    return torch.randn(3, 2, 8, 32), keep


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_mask_of_scaled_dot_product_attention(mask: Mask) -> None:
    check(lambda q, keep: F.scaled_dot_product_attention(q, q, q, mask(keep)), inputs)


@pytest.mark.parametrize("mask", [mask for mask in MASKS if mask != "boolean"])
def test_a_mask_of_attention_that_is_spelled_out(mask: str) -> None:
    def attend(q: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return (q @ q.transpose(-1, -2) * 32**-0.5 + MASKS[mask](keep)).softmax(-1) @ q

    if "inf" in mask:  # a row without keys is a matter of taste: eager's softmax gives NaN, its attention zeros
        compiled = torch.compile(attend, backend="ttnn")
        q, keep = inputs()
        assert_same(compiled(q, keep)[:2], attend(q, keep)[:2])
    else:
        check(attend, inputs)


def test_scores_that_are_filled() -> None:
    def attend(q: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return (q @ q.transpose(-1, -2)).masked_fill(keep == 0, SMALLEST).softmax(-1) @ q

    check(attend, inputs)


def test_a_mask_that_the_caller_made() -> None:
    def make() -> tuple[torch.Tensor, torch.Tensor]:
        q, keep = inputs()
        return q, (1.0 - keep) * SMALLEST

    check(lambda q, mask: F.scaled_dot_product_attention(q, q, q, mask), make)


def test_a_mask_that_is_a_buffer() -> None:
    class Causal(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.full((8, 8), SMALLEST).triu(1))
            self.mask: torch.Tensor

        def forward(self, q: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(q, q, q, self.mask)

    check(Causal(), lambda: (torch.randn(1, 2, 8, 32),))


def test_grouped_heads() -> None:
    def attend(q: torch.Tensor, k: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, k, keep, enable_gqa=True)

    keep = torch.ones(8, 8, dtype=torch.bool).tril()
    check(attend, lambda: (torch.randn(2, 4, 8, 32), torch.randn(2, 2, 8, 32), keep))


def test_numbers_at_the_ends_of_the_range() -> None:
    nan, inf, largest = torch.nan, torch.inf, torch.finfo(torch.float32).max
    ends = torch.tensor([[nan, inf, -inf, 0.0, -0.0, largest, -largest, 1e-40, 1.5, -2.5]])
    check(lambda x: (-x, x.abs(), torch.relu(x), x.isnan(), x.isinf(), x > 0, x == x), lambda: (ends,))


@pytest.mark.parametrize("preset", ["accuracy", "balanced"])
def test_padding_before_a_prompt_that_reads_no_key_reaches_no_other_token(preset: str) -> None:
    def twice(q: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        allowed = keep & torch.ones(8, 8, dtype=torch.bool).tril()
        first = F.scaled_dot_product_attention(q, q, q, allowed)
        return F.scaled_dot_product_attention(first, first, first, allowed)

    q, keep = inputs()
    keep = keep.flip(-1).bool()[:2]
    compiled = torch.compile(twice, backend="ttnn", options={"preset": preset})(q[:2], keep)
    assert compiled.isfinite().all()
    torch.testing.assert_close(compiled[0, :, 3:], twice(q[:2], keep)[0, :, 3:], atol=0.03, rtol=0.03)
    torch.testing.assert_close(compiled[1], twice(q[:2], keep)[1], atol=0.03, rtol=0.03)
