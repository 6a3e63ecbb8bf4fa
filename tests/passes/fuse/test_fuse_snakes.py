"""Snakes of parameters become one operation, however their scale is spelled; what only looks like one stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captured import Captured, Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.snakes import fuse_snakes
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.normalize.canonicalize import canonicalize

Forward = Callable[[Any, torch.Tensor], torch.Tensor]
SPELLINGS: dict[str, Forward] = {
    "DAC": lambda self, x: x + (self.p0 + 1e-9).reciprocal() * torch.sin(self.p0 * x).pow(2),
    "BigVGAN": lambda self, x: x + (1.0 / (self.p1.exp() + 1e-9)) * torch.pow(torch.sin(x * self.p0.exp()), 2),
    "a quotient": lambda self, x: torch.sin(x * self.p0) ** 2 / (self.p1 + 1) + x,
    "a factor": lambda self, x: x + torch.sin(x * self.p0).square() * self.p1,
}


def captured(forward: Forward, *shape: int, convolution: bool = False) -> Captured:
    """The graph of a snake of 6 channels, in the last dimension, or in the second and behind a convolution."""
    parameters = [nn.Parameter(random(6, 1).abs() + n if convolution else random(6).abs() + n) for n in (1, 2)]
    first = nn.Conv1d(6, 6, 1) if convolution else nn.Identity()
    model = Module(*parameters, first, forward=lambda self, x: forward(self, self.p2(x)))
    graph = capture(model, random(*shape))
    graph.apply(canonicalize, exact=False)
    return graph


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_becomes_one_operation(name: str) -> None:
    graph = captured(SPELLINGS[name], 2, 5, 6)
    assert graph.apply(fuse_snakes, exact=False) == 1
    assert not graph.calls(aten.sin.default)


@pytest.mark.parametrize("name", SPELLINGS)
def test_channels_in_the_second_dimension_are_last_behind_a_convolution(name: str) -> None:
    graph = captured(SPELLINGS[name], 2, 6, 5, convolution=True)
    assert graph.apply(channels_last, fuse_snakes, exact=False) == 1
    _, frequency, denominator = graph.only(operators.snake).args
    assert [value.meta["val"].shape for value in (frequency, denominator)] == [(1, 1, 1, 6)] * 2


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: x + torch.sin(x.exp() * self.p0) ** 2 * self.p1,
        lambda self, x: x + torch.cos(x * self.p0) ** 2 * self.p1,
        lambda self, x: x + torch.sin(x * self.p0) ** 3 * self.p1,
        lambda self, x: x + torch.sin(x * self.p0) * torch.sin(x * self.p1) * self.p1,
        lambda self, x: x + torch.sin(x * self.p0) ** 2 * x.mean((0, 1), keepdim=True),
        lambda self, x: x + torch.sin(x * self.p0[:5, None]) ** 2 * self.p1,
        lambda self, x: x + self.p1 / torch.sin(x * self.p0) ** 2,
    ],
    ids=["other x", "cosine", "cube", "two frequencies", "scale of x", "frequency of rows", "inverse"],
)
def test_what_is_no_snake_of_parameters_stays(forward: Forward) -> None:
    graph = captured(forward, 2, 5, 6)
    assert graph.apply(fuse_snakes) == 0


def test_what_else_reads_the_sine_keeps_it() -> None:
    def forward(self: Any, x: torch.Tensor) -> Any:
        sine = torch.sin(x * self.p0)
        return x + sine**2 * self.p1, sine

    graph = captured(forward, 2, 5, 6)
    assert graph.apply(fuse_snakes) == 0
