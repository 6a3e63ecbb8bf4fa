"""What gives back its operand is dropped; what gives another value, or the caller a tensor of its own, stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captured import capture, random

from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.identities import drop_identities

DROPPED: dict[str, Callable[[torch.Tensor], Any]] = {
    "times one": lambda x: x * 1,
    "over one": lambda x: x / 1.0,
    "two slices": lambda x: torch.cat((x[:, :2], x[:, 2:]), 1),
    "chunks": lambda x: torch.cat(x.chunk(3, -1), -1),
    "chosen everywhere": lambda x: torch.where(torch.arange(6) >= 0, torch.exp(x), x),
    "chosen nowhere": lambda x: torch.where(torch.zeros(6, 1) > 0, x, torch.exp(x)),
    "parts of several sizes": lambda x: torch.cat(x.split([1, 3, 2], 1), 1),
}
KEPT: dict[str, Callable[[torch.Tensor], Any]] = {
    "times two": lambda x: x * 2,
    "another dtype": lambda x: x.bfloat16() / torch.ones((), dtype=torch.float32) * 1.5,
    "chosen in places": lambda x: torch.where(torch.arange(6) > 0, torch.exp(x), x),
    "other order": lambda x: torch.cat((x[:, 2:], x[:, :2]), 1),
    "some of it": lambda x: torch.cat((x[:, :2], x[:, 2:4]), 1),
    "two values": lambda x: torch.cat((x[:, :2], torch.exp(x)[:, 2:]), 1),
    "along another dimension": lambda x: torch.cat((x[:, :3], x[:, 3:]), 2),
}


def dropped(function: Callable[[torch.Tensor], Any], between: bool = True) -> int:
    def forward(x: torch.Tensor) -> Any:
        return torch.sin(function(torch.cos(x))) if between else function(torch.cos(x))

    graph = capture(forward, random(2, 6, 6))
    graph.apply(canonicalize)
    return graph.apply(drop_identities)


@pytest.mark.parametrize("case", DROPPED)
def test_what_gives_back_its_operand_is_dropped(case: str) -> None:
    assert dropped(DROPPED[case]) == 1
    assert dropped(DROPPED[case], between=False) == 0  # the caller's own


@pytest.mark.parametrize("case", KEPT)
def test_what_gives_another_value_stays(case: str) -> None:
    assert dropped(KEPT[case]) == 0
