"""Associative scans become one recurrence where that is what they compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captured import capture, random
from torch._higher_order_ops.associative_scan import associative_scan

from tt_dynamo.ir import operators
from tt_dynamo.passes.loops.scans import fuse_scans


def decaying(left: Any, right: Any) -> Any:
    return left[0] * right[0], right[0] * left[1] + right[1]


def summing(left: Any, right: Any) -> Any:
    return left[0] * right[0], left[1] + right[1]


def crossed(left: Any, right: Any) -> Any:
    return left[0] * right[0], left[0] * left[1] + right[1]


def through_tanh(left: Any, right: Any) -> Any:
    return left[0] * right[0], right[0].tanh() * left[1] + right[1]


class Scan(torch.nn.Module):
    def __init__(self, combine: Any, dim: int) -> None:
        super().__init__()
        self.combine, self.dim = combine, dim

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> Any:
        return associative_scan(self.combine, (a, b), dim=self.dim, combine_mode="generic")[1]


@pytest.mark.parametrize(("tokens", "dim"), [(2, 0), (3, 0), (8, 1), (13, 0)])
def test_a_linear_recurrence_is_found(tokens: int, dim: int) -> None:
    shape = (tokens, 3) if dim == 0 else (3, tokens)
    graph = capture(Scan(decaying, dim), random(*shape), random(*shape))
    assert graph.apply(fuse_scans, exact=False) == 1
    assert graph.only(operators.linear_recurrence)
    assert len(graph.targets()) <= 9


@pytest.mark.parametrize("combine", [summing, crossed, through_tanh])
def test_any_other_scan_stays(combine: Any) -> None:
    graph = capture(Scan(combine, 0), random(7, 3), random(7, 3))
    before = graph.targets()
    assert graph.apply(fuse_scans) == 0
    assert graph.targets() == before


@pytest.mark.parametrize("view", [lambda x: x.sum().view(1), lambda x: x[:1, :1].view(()), lambda x: x.view(21)[1:3]])
def test_views_of_an_input_and_of_numbers_are_no_scans(view: Any) -> None:
    assert capture(view, random(7, 3)).apply(fuse_scans) == 0
