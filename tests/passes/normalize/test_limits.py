"""Limits that hold anyway go; all others stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captured import capture, random
from torch.nn import functional as F

from tt_dynamo.passes.normalize.limits import drop_limits

Function = Callable[[torch.Tensor], torch.Tensor]


@pytest.mark.parametrize("function", [F.softplus, torch.relu, torch.exp, torch.abs])
@pytest.mark.parametrize("limits", [(0.0, float("inf")), (-1.0, None)])
def test_what_is_positive_keeps_no_limit_at_zero(function: Function, limits: tuple[float, float | None]) -> None:
    graph = capture(lambda x: torch.clamp(function(x), *limits), random(3, 5))
    assert graph.apply(drop_limits) == 1


@pytest.mark.parametrize("limits", [(0.1, None), (0.0, 2.0)])
def test_limits_that_cut_stay(limits: tuple[float, float | None]) -> None:
    assert capture(lambda x: torch.clamp(F.softplus(x), *limits), random(3, 5)).apply(drop_limits) == 0


def test_zero_limits_what_may_be_negative() -> None:
    assert capture(lambda x: torch.clamp(torch.sin(x), 0.0, float("inf")), random(3, 5)).apply(drop_limits) == 0
