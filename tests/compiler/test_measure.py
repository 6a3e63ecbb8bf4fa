"""What a report counts of a run on zeros, in which operations of eager torch are not called."""

from __future__ import annotations

import pytest
import torch
from comparison import check

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def test_launches_are_counted_beside_a_division_of_integers_which_zeros_would_fail() -> None:
    def model(x: torch.Tensor, n: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.relu(x @ x) * 2, n // d, n.cumsum(0)

    (report,) = check(model, lambda: (torch.randn(64, 64), torch.tensor([7, 8]), torch.tensor([2, 3])))
    assert report.device_programs > 0
    assert len(report.operations) == report.calls


def test_launches_are_counted_beside_several_results_of_the_host() -> None:
    def model(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values, places = x.double().sort(0)
        return torch.relu(x @ x), values, places

    (report,) = check(model, lambda: (torch.randn(32, 32),))
    assert report.device_programs > 0
