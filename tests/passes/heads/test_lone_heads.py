"""Heads of a projection that has its input for itself are split by one kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random
from comparison import assert_same

import tt_dynamo
from tt_dynamo.ir import operators
from tt_dynamo.passes.heads.key_value_heads import split_key_value_heads
from tt_dynamo.passes.heads.lone_heads import split_lone_heads
from tt_dynamo.passes.normalize.canonicalize import canonicalize

WIDTH, IMAGE, WORDS = 128, random(2, 36, 128), random(2, 9, 128)


class Cross(torch.nn.Module):
    """Attention of one stream to another."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.heads = heads

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        heads = self.split(self.q(x)), self.split(self.k(y)), self.split(self.v(y))
        return self.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))


def split(model: torch.nn.Module, *inputs: torch.Tensor, by=split_lone_heads):
    graph = capture(model, *inputs)
    graph.apply(canonicalize, exact=False)
    return graph, graph.apply(by, exact=False)


@pytest.mark.parametrize("heads", [2, 4])
def test_each_projection_gets_its_heads_from_one_kernel(heads):
    graph, changed = split(Cross(heads), IMAGE, WORDS)
    assert changed == len(graph.calls(operators.split_lone_heads)) == 3


@pytest.mark.parametrize("heads", [2, 4])
def test_key_and_value_of_one_input_are_one_projection(heads):
    graph = capture(Cross(heads), IMAGE, WORDS)
    graph.apply(canonicalize, exact=False)
    assert graph.apply(split_key_value_heads, exact=False) == 1
    assert graph.apply(split_lone_heads, exact=False) == 1  # the query
    assert len(graph.calls(operators.linear)) == 3 and len(graph.calls(operators.split_key_value)) == 1


class Flipped(Cross):
    """Columns of a head are apart."""

    def split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, self.heads)).permute(0, 3, 1, 2)


OTHERS = {
    "heads that fill no tile": (Cross(8), IMAGE, WORDS),
    "one head, which is a view": (Cross(1), IMAGE, WORDS),
    "one row": (Cross(2), IMAGE[:, :1], WORDS[:, :1]),
    "columns apart": (Flipped(4), IMAGE, WORDS),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_heads_are_left_alone(case):
    for by in (split_lone_heads, split_key_value_heads):
        graph, changed = split(*OTHERS[case], by=by)
        if by is split_lone_heads or case != "columns apart":  # which one weight may hold in any order
            assert changed == 0 and not graph.calls(operators.split_lone_heads, operators.split_key_value)


@pytest.mark.usefixtures("clean_dynamo", "board_device")
@torch.no_grad()
def test_no_launch_of_cross_attention_only_moves():
    model = Cross(4).eval()
    with tt_dynamo.record() as reports:
        out = torch.compile(model, backend="ttnn", options={"fallback": "error"})(IMAGE, WORDS)
    assert_same(out, model(IMAGE, WORDS))
    (report,) = reports
    assert sum(op.programs for op in report.operations if "nlp_create_q" in op.target) == 2
    assert not report.movement.operations.keys() & {"ttnn.permute", "ttnn.reshape"}
