"""Pools of images between other operations."""

import pytest
import torch
import torch.nn.functional as F
from compiled import calls, check, compiled, random, rounded, unsharded
from torch import nn

IMAGE = random(2, 6, 9, 11)


class Excited(nn.Module):
    """A convolution whose channels are weighted by what their means say."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(6, 40, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(40, 8, 1), nn.Conv2d(8, 40, 1)
        self.last = nn.Conv2d(40, 6, 1)

    def forward(self, x):
        x = torch.relu(self.convolution(x))
        weights = self.excite(torch.relu(self.squeeze(F.adaptive_avg_pool2d(x, 1))))
        return self.last(x * torch.sigmoid(weights))


@pytest.mark.parametrize(
    "batch, between", [(1, ["mean"]), (2, ["to_layout", "reshape", "mean", "reshape", "to_layout"])], ids=["one", "two"]
)
def test_means_weigh_the_channels_of_an_image_that_stays_where_it_lies(batch, between):
    """Batch 1: 2 launches for the means, 2 for the linears, 1 for the product."""
    report = check(rounded(Excited()), random(batch, 6, 9, 11), roundings=6, cancels=True)
    found = calls(report)
    first, last = (index for index, call in enumerate(found) if call == "conv2d")
    looked_up = ["reshape", "to_layout", "embedding", "reshape"] if batch > 1 else []
    assert found[first + 1 : last] == [*between, "linear", "linear", *looked_up, "multiply"]


def test_an_image_of_infinities_weighs_no_other_of_its_batch():
    x = random(2, 6, 9, 11)
    x[1] = float("inf")
    found, report = compiled(rounded(Excited()), x)
    assert not report.fallbacks and found[0].isfinite().all() and not found[1].isfinite().any()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("side", [8, 9])
def test_means_over_images_are_those_of_each(batch, side):
    model = nn.Sequential(nn.Conv2d(6, 33, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(33, 7))
    report = check(rounded(model), random(batch, 6, side, side), roundings=4, cancels=True)
    assert calls(report).count("mean") == 1 and "to_memory_config" not in calls(report)


def test_means_of_rows_are_read_by_a_linear():
    """What shuffles pixels leaves rows, whose means a linear takes as tiles only."""
    layers = nn.Conv2d(3, 24, 3), nn.PixelShuffle(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    assert "linear" in calls(check(rounded(nn.Sequential(*layers)), random(1, 3, 9, 9), roundings=5, cancels=True))


def test_nothing_moves_between_pools():
    report = check(lambda x: F.avg_pool2d(F.max_pool2d(x, 2), 2), IMAGE, roundings=2, cancels=True)
    assert unsharded(report) == ["max_pool2d", "avg_pool2d"]
