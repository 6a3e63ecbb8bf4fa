"""Decompositions of ours: eager's answer, computed on the device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

sys.path.append(str(Path(__file__).parent / "lowering"))

from comparison import check
from compiled import calls, close, compiled, random

pytestmark = pytest.mark.usefixtures("clean_dynamo")


@pytest.mark.parametrize("p", [0.25, 1.0])
@pytest.mark.parametrize(
    "move", [torch.relu, lambda x: x.mT, lambda x: x[:, :1].expand(4, 7, 5)], ids=["", "moved", "expanded"]
)
def test_dropout_drops_what_eager_torch_drops(move, p):
    x = random(4, 7, 5)
    torch.manual_seed(1)
    expected = functional.dropout(move(x), p, True)
    torch.manual_seed(1)
    outputs, report = compiled(lambda x: functional.dropout(move(x), p, True), x)
    close(outputs, expected, roundings=2)
    assert [fallback.node for fallback in report.fallbacks] == ["bernoulli"]
    assert calls(report)[-1] == "multiply"


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.select(1, 2),
        lambda x: x.select(-1, -1),
        lambda x: x[:, 1:3],
        lambda x: x[..., -2:],
        lambda x: x[2:, :, :-1],
        lambda x: x[:, 1::2],
        lambda x: x[:, :100],
    ],
    ids=["select", "select last", "slice", "slice end", "two slices", "steps", "beyond the end"],
)
def test_the_gradient_of_a_part_is_zero_elsewhere(read):
    def make():
        return (torch.randn(4, 7, 5, requires_grad=True),)

    check(lambda x: torch.relu(read(x)) * 2, make, backward=True)
