"""Carrying activations at rank 4: where the reshapes go, and what stays at rank 3."""

import pytest
import torch
from captured import capture, random
from torch import nn
from torch.nn import functional as F

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes import PASSES
from tt_dynamo.passes.fuse.epilogues import fuse_linear_activation, fuse_residual_norm
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rows import sink_rank3_reshapes

BATCH, SEQ, WIDTH = 2, 5, 12
FOUR = (BATCH, 1, SEQ, WIDTH)


def carried(model, *inputs):
    graph = capture(model, *inputs)
    for transform in (canonicalize, fuse_linear_activation, fuse_residual_norm):
        graph.apply(transform, exact=False)
    return graph, graph.apply(sink_rank3_reshapes, exact=False)


def from_rank_4(x):
    """What the merged heads of an attention are: [batch, 1, seq, width] that something reads at rank 3."""
    return torch.neg(x).reshape(BATCH, SEQ, WIDTH)


ROWWISE = {
    "gelu": F.gelu,
    "relu": torch.relu,
    "sum with its like": lambda x: x + x.sigmoid(),
    "layer norm": lambda x: F.layer_norm(x, [WIDTH]),
}


@pytest.mark.parametrize("name", ROWWISE)
def test_a_reshape_to_rank_3_moves_below_what_works_row_by_row(name):
    graph, changed = carried(lambda x: torch.cos(ROWWISE[name](from_rank_4(x))), random(*FOUR))
    assert changed >= 1
    (reshape,) = graph.calls(aten.reshape.default)
    assert [user.target for user in reshape.users] == [aten.cos.default]


def test_a_whole_block_is_carried_and_only_its_residual_is_reshaped():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.out, self.wide, self.norm = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)

        def forward(self, x, residual):
            y = self.norm(self.out(from_rank_4(x)) + residual)
            return torch.cos(self.norm(self.wide(F.gelu(self.wide(y))) + y).reshape(FOUR))

    graph, _ = carried(Block(), random(*FOUR), random(BATCH, SEQ, WIDTH))
    (reshape,) = graph.calls(aten.reshape.default)
    assert reshape.args[0].op == "placeholder"
    assert {n.meta["val"].dim() for n in graph.calls(operators.linear, operators.add_layer_norm)} == {4}


STAYING = {
    "nothing at rank 4": lambda x: F.gelu(x.sin()),
    "a broadcast operand": lambda x: from_rank_4(x[:, None]) + torch.ones(1, SEQ, WIDTH),
    "another leading shape": lambda x: F.gelu(x.sin().reshape(BATCH * SEQ, WIDTH)),
    "another operation": lambda x: torch.cumsum(from_rank_4(x[:, None]), 1),
}


@pytest.mark.parametrize("name", STAYING)
def test_what_is_left_alone(name):
    _, changed = carried(STAYING[name], random(BATCH, SEQ, WIDTH))
    assert changed == 0


def test_it_runs_before_constants_are_folded_so_reshaped_constants_cost_nothing():
    names = [transform.__name__ for transform in PASSES]
    assert names.index("sink_rank3_reshapes") < names.index("fold_constants")
