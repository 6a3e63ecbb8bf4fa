"""`parameter.data = …` in a forward: the caller's parameter has the new values, and nothing else leaves the device."""

import pytest
import torch
from comparison import check
from torch import nn

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


class Clamped(nn.Module):
    """A linear whose weight is kept small, as the discriminators of GANs do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.linear.weight.data = self.linear.weight.data.clamp(-0.1, 0.1)
        return self.linear(x).relu()


def test_the_parameter_changes_and_the_rest_stays_on_the_device() -> None:
    (report,) = check(Clamped(), lambda: [torch.randn(4, 32)], calls=2)
    assert report.fallbacks == []
