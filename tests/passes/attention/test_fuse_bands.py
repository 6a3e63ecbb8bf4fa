"""Attention that is computed by diagonals becomes attention of blocks."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import transformers
from captured import capture
from torch import Tensor, nn
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes import PHASES
from tt_dynamo.passes.attention.bands import fuse_bands

NORMALIZE = [step.run for step in PHASES["normalize"]]
SEQ, WINDOW, DIM = 32, 4, 8


class Diagonals(nn.Module):
    """x [batch, 32, 16] -> the same: two heads, whose queries read 4 keys on either side; outside: what stands for
    a key before the first or after the last."""

    def __init__(self, outside: float = -math.inf, masked: bool = True) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(2 * DIM, 2 * DIM) for _ in range(3))
        self.outside, self.masked = outside, masked

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch = x.shape[0]
        query, key, value = (
            f(x).view(batch, SEQ, 2, DIM).transpose(1, 2).reshape(batch * 2, SEQ, DIM)
            for f in (self.query, self.key, self.value)
        )
        whole = torch.bmm(query / DIM**0.5, key.transpose(1, 2))
        band = self.skew(whole, self.outside)
        if self.masked:
            band = band + self.skew(mask.view(batch, 1, SEQ).repeat_interleave(2, 0).expand(-1, SEQ, -1), -math.inf)
        weights = self.unskew(torch.softmax(band, -1))
        return torch.bmm(weights, value).view(batch, 2, SEQ, DIM).transpose(1, 2).reshape(x.shape)

    @staticmethod
    def skew(whole: Tensor, outside: float) -> Tensor:
        """[n, seq, seq] -> [n, seq, 2 * window + 1]: the diagonals around the main one."""
        padded = F.pad(whole, (WINDOW, WINDOW), value=outside).reshape(whole.shape[0], -1)
        return F.pad(padded, (0, SEQ)).reshape(whole.shape[0], SEQ, -1)[..., : 2 * WINDOW + 1]

    @staticmethod
    def unskew(band: Tensor) -> Tensor:
        """[n, seq, 2 * window + 1] -> [n, seq, seq], zero outside the band."""
        padded = F.pad(band, (0, SEQ)).reshape(band.shape[0], -1)[:, :-SEQ]
        return padded.reshape(band.shape[0], SEQ, SEQ + 2 * WINDOW)[..., WINDOW:-WINDOW]


def mask(batch: int) -> Tensor:
    return torch.where(torch.arange(SEQ) < 29, 0.0, -1e4).expand(batch, SEQ).contiguous()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("masked", [True, False])
def test_diagonals_become_blocks(batch: int, masked: bool) -> None:
    captured = capture(Diagonals(masked=masked).eval(), torch.randn(batch, SEQ, 2 * DIM), mask(batch))
    assert captured.apply(*NORMALIZE, fuse_bands, exact=False) == 1
    assert captured.only(aten.scaled_dot_product_attention.default)
    assert not captured.calls(aten.softmax.int, aten._softmax.default, aten.constant_pad_nd.default)


def test_keys_outside_that_count_are_left_alone() -> None:
    captured = capture(Diagonals(outside=0.0).eval(), torch.randn(1, SEQ, 2 * DIM), mask(1))
    assert captured.apply(*NORMALIZE, fuse_bands, exact=False) == 0
    assert captured.only(aten.softmax.int)


class Longformer(nn.Module):
    """Two attentions, each over four tokens on either side."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.LongformerConfig(hidden_size=16, num_attention_heads=2, attention_window=[8, 8])
        self.layers = nn.ModuleList(LongformerSelfAttention(config, layer) for layer in range(2))

    def forward(self, x: Tensor, mask: Tensor, is_masked: Tensor) -> Tensor:
        for layer in self.layers:
            (x,) = layer(x, mask, is_index_masked=is_masked)
        return x


def test_two_layers_of_longformer_share_their_mask() -> None:
    hidden = (torch.arange(SEQ) >= 29)[None]
    captured = capture(Longformer().eval(), torch.randn(1, SEQ, 16), hidden * -1e4, hidden)
    assert captured.apply(*NORMALIZE, fuse_bands, exact=False) == 2
    first, second = captured.calls(aten.scaled_dot_product_attention.default)
    assert first.args[3] is second.args[3]
