"""Running extremes and mirrored rows of integers, as masks of words are made of, are bookkeeping of the host."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from comparison import check
from torch import Tensor

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

TOKENS = torch.tensor([[101, 7, 9, 12, 7, 8, 12, 102], [101, 7, 12, 12, 7, 8, 9, 102]])
TABLE = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))


def words(tokens: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens see those up to the same full stop, and know how far behind one they stand, as in Grounding DINO."""
    length = tokens.shape[1]
    special = torch.isin(tokens, torch.tensor([101, 102, 12]))
    places = torch.arange(length).expand(2, -1)
    before = torch.cummax(torch.where(special, places, torch.full((), -1)), dim=1)[0]
    after = torch.where(special, places, torch.tensor(length))
    after = torch.flip(torch.cummin(torch.flip(after, dims=[1]), dim=1)[0], dims=[1])
    mask = after.unsqueeze(2) == after.unsqueeze(1)
    return torch.where(mask, 0.0, -10.0) @ x, F.embedding((places - before - 1).clamp(min=0), TABLE) @ x.mT


def test_masks_of_words_are_no_fallback() -> None:
    (report,) = check(words, lambda: (TOKENS, torch.randn(2, 8, 16)))
    assert not report.fallbacks and report.device_nodes
