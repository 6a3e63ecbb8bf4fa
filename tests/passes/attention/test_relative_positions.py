"""Scores of relative positions are looked up in tiles, and their scale goes into the table."""

from __future__ import annotations

import pytest
import torch
from captured import capture, random
from torch import Tensor, nn
from transformers import DebertaV2Config, SEWDConfig
from transformers.models.deberta_v2 import modeling_deberta_v2 as deberta_v2
from transformers.models.sew_d import modeling_sew_d as sew_d

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes import PHASES
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.attention.relative_positions import fuse_relative_positions
from tt_dynamo.passes.heads.qkv import fuse_qkv

NORMALIZE = [step.run for step in PHASES["normalize"]]
HEADS, SEQ, DIM, SPAN = 2, 6, 4, 8
sdpa = aten.scaled_dot_product_attention.default


class Distances(nn.Module):
    """q [heads, seq, dim] -> scores [heads, seq, seq] of the distances, as `read` makes them of product and places."""

    def __init__(self, read, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.table, self.read = nn.Parameter(random(HEADS, 2 * SPAN, DIM).to(dtype)), read

    def forward(self, q: Tensor) -> Tensor:
        places = torch.arange(SEQ)
        places = (places[:, None] - places + SPAN).expand(HEADS, SEQ, SEQ)
        return self.read(torch.bmm(q, self.table.mT), places)


def rewritten(read, *, dtype: torch.dtype = torch.float32):
    captured = capture(Distances(read, dtype).eval(), random(HEADS, SEQ, DIM).to(dtype))
    return captured, captured.apply(*NORMALIZE, fuse_relative_positions, exact=False)


def test_distances_are_looked_up_in_tiles_and_scaled_in_the_table():
    captured, count = rewritten(lambda x, i: x.gather(-1, i).transpose(1, 2) / torch.sqrt(torch.tensor(3.0)))
    assert count == 1 and captured.only(operators.gather_columns)
    assert not captured.calls(aten.gather.default, aten.div.Tensor)


def test_numbers_that_are_not_finite_stay_what_they_are():
    captured = capture(Distances(lambda x, i: x.gather(-1, i) * 0.5).eval(), random(HEADS, SEQ, DIM))
    captured.arguments = [
        x * float("inf") if isinstance(x, Tensor) and x.shape == (HEADS, SEQ, DIM) else x for x in captured.arguments
    ]
    assert captured.apply(*NORMALIZE, fuse_relative_positions, exact=False) == 1


def test_a_product_that_something_else_reads_keeps_its_scale():
    captured, count = rewritten(lambda x, i: x.gather(-1, i) * 0.5 + x[..., :SEQ])
    assert count == 1 and captured.only(aten.mul.Tensor).args[0].target is operators.gather_columns


def test_scores_that_something_else_reads_keep_their_scale():
    captured, _ = rewritten(lambda x, i: (x.gather(-1, i) * 0.5, x.gather(-1, i) + 1))
    assert captured.only(aten.mul.Tensor)


@pytest.mark.parametrize(
    "read",
    [
        lambda x, i: x.gather(1, i.clamp(max=SEQ - 1)),  # along the queries
        lambda x, i: x.gather(-1, i[:1]),  # of some heads alone
        lambda x, i: x.gather(-1, i[:, :2]),
        lambda x, i: (x + 1).gather(-1, i),  # no product
        lambda x, i: x.gather(-1, (x[..., :SEQ] > 0).long()),  # places that the run tells
        lambda x, i: (x @ x.mT).gather(-1, i.clamp(max=SEQ - 1)),  # no table
    ],
)
def test_what_is_no_table_of_distances_is_left_alone(read):
    captured, count = rewritten(read)
    assert count == 0 and captured.only(aten.gather.default)


def test_half_precision_is_looked_up_alike():
    captured, count = rewritten(lambda x, i: x.gather(-1, i), dtype=torch.bfloat16)
    assert count == 1 and captured.only(operators.gather_columns)


class Attention(nn.Module):
    """x [batch, seq, 16] and whether a token counts [batch, 1, 1, seq] -> the same as x."""

    def __init__(self, kinds: list[str], module: type, config: type) -> None:
        super().__init__()
        settings = config(
            hidden_size=16, num_attention_heads=2, max_position_embeddings=16, position_buckets=4, norm_rel_ebd="none",
            relative_attention=True, pos_att_type=kinds, share_att_key=True, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.attention, self.table = module(settings), nn.Parameter(random(8, 16))

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        return self.attention(x, keep * keep.transpose(-1, -2), rel_embeddings=self.table)[0]


def attention(kinds: list[str], module: type, config: type, batch: int):
    keep = torch.ones(batch, 1, 1, SEQ, dtype=torch.long)
    keep[-1, ..., -2:] = 0
    return capture(Attention(kinds, module, config).eval(), random(batch, SEQ, 16), keep)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kinds", [["c2p"], ["p2c", "c2p"]])
def test_attention_with_relative_positions_is_one_operation(kinds, batch):
    captured = attention(kinds, deberta_v2.DisentangledSelfAttention, DebertaV2Config, batch)
    assert captured.apply(*NORMALIZE, fuse_relative_positions, exact=False) == len(kinds)
    assert not any(user.target is aten.div.Tensor for x in captured.calls(operators.gather_columns) for user in x.users)
    assert captured.apply(fuse_attention, exact=False)
    assert captured.only(sdpa) and not captured.calls(aten.softmax.int)
    captured.apply(fuse_qkv, exact=False)
    assert captured.only(operators.split_heads), "keys that meet queries and positions are the same heads"


def test_weights_that_are_zeroed_behind_the_softmax_keep_it():
    captured = attention(["p2c", "c2p"], sew_d.DisentangledSelfAttention, SEWDConfig, 2)
    assert captured.apply(*NORMALIZE, fuse_relative_positions, exact=False) == 2
    assert captured.apply(fuse_attention, exact=False) == 0
    assert captured.only(aten.softmax.int)
