"""Choices of a nearest code become one product and its largest score; other choices stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captured import Captured, Module, capture, parameter, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.nearest_codes import nearest_codes

Forward = Callable[[Any, torch.Tensor], torch.Tensor]


def encodec(self: Any, x: torch.Tensor) -> torch.Tensor:
    codes = self.p0.t()
    lengths = x.pow(2).sum(1, keepdim=True)
    return (-(lengths - 2 * x @ codes + codes.pow(2).sum(0, keepdim=True))).max(dim=-1).indices


def dac(self: Any, x: torch.Tensor) -> torch.Tensor:
    lengths = x.pow(2).sum(1, keepdim=True)
    scores = -(lengths - 2 * x @ self.p0.t()) + self.p0.pow(2).sum(1, keepdim=True).t()
    return scores.max(1)[1]


def smallest(self: Any, x: torch.Tensor) -> torch.Tensor:
    lengths = (x * x).sum(-1, keepdim=True)
    return torch.argmin(lengths + (self.p0 * self.p0).sum(-1) - 2 * (x @ self.p0.t()), -1)


def mimi(self: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.cdist(x[None], self.p0[None], p=2)[0].argmin(dim=-1)


SPELLINGS = {"EnCodec": encodec, "DAC": dac, "smallest": smallest, "Mimi": mimi}


def captured(forward: Forward) -> Captured:
    graph = capture(Module(parameter(40, 6), parameter(6), forward=forward), random(9, 6))
    graph.apply(canonicalize, exact=False)
    return graph


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_choice_of_a_nearest_code_is_one_product(name: str) -> None:
    graph = captured(SPELLINGS[name])
    assert graph.apply(nearest_codes) == 1
    (scores,) = graph.only(aten.argmax.default).args[:1]
    assert scores is graph.only(operators.linear)
    assert not graph.calls(aten.sub.Tensor, aten.neg.default, aten._euclidean_dist.default)


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: (2 * x @ self.p0.t() - (x.exp() ** 2).sum(1, keepdim=True)).argmax(-1),
        lambda self, x: (2 * x @ self.p0.t() - (x**2).sum(0)[:1]).argmax(-1),
        lambda self, x: ((x**2).sum(1, keepdim=True) - 2 * x @ self.p0.t()).argmin(0),
        lambda self, x: ((x**2).sum(1, keepdim=True) - x @ self.p0[:6].t() + x).argmin(-1),
        lambda self, x: (x @ self.p0.t()).argmax(-1),
        lambda self, x: torch.cdist(x[None], x[None])[0].argmin(-1),
        lambda self, x: torch.cdist(x[None], self.p0[None])[0].argmax(-1),
    ],
    ids=[
        "another length",
        "length of a column",
        "nearest vector",
        "a sum with x",
        "no length",
        "of vectors",
        "farthest",
    ],
)
def test_other_choices_stay(forward: Forward) -> None:
    assert captured(forward).apply(nearest_codes) == 0


def test_distances_that_are_read_stay() -> None:
    def forward(self: Any, x: torch.Tensor) -> Any:
        distances = torch.cdist(x[None], self.p0[None])
        return distances, distances[0].argmin(-1)

    assert captured(forward).apply(nearest_codes) == 0
