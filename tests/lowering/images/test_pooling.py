"""Pools of images and signals: one TTNN call each."""

import pytest
import torch
import torch.nn.functional as F
from compiled import calls, check, compiled, falls_back, positive, random, rounded, unsharded
from torch import nn

IMAGE = random(2, 6, 9, 11)

MAXIMA = {
    "of touching windows": lambda x: F.max_pool2d(x, 2),
    "of overlapping windows": lambda x: F.max_pool2d(x, 3, 2, 1),
    "of rows and columns apart": lambda x: F.max_pool2d(x, (2, 3), (1, 2), (1, 0)),
    "with windows that leave the image": lambda x: F.max_pool2d(x, 2, ceil_mode=True),
    "with dilation": lambda x: F.max_pool2d(x, 3, 1, 1, dilation=2),
    "of the whole image": lambda x: F.max_pool2d(x, (9, 11)),
    "without a batch": lambda x: F.max_pool2d(x[0], 2),
    "to a size that divides": lambda x: F.adaptive_max_pool2d(x, (3, 1)),
    "of a signal": lambda x: F.max_pool1d(x[0], 3, 2, 1),
    "of a signal without a batch": lambda x: F.max_pool1d(x[0, 0], 2),
}

MEANS = {
    "of touching windows": lambda x: F.avg_pool2d(x, 2),
    "of overlapping windows": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "of rows and columns apart": lambda x: F.avg_pool2d(x, (2, 3), (1, 2), (1, 0)),
    "with windows that leave the image": lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
    "that do not count padding": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "that leave the image and do not count padding": lambda x: F.avg_pool2d(x, 3, 2, 1, True, False),
    "that leave the image and count padding": lambda x: F.avg_pool2d(x, 4, 3, 2, True),
    "with a divisor of their own": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "without a batch": lambda x: F.avg_pool2d(x[0], 2),
    "to a size that divides": lambda x: F.adaptive_avg_pool2d(x, (3, 1)),
    "of a signal": lambda x: F.avg_pool1d(x[0], 3, 2, 1),
}


@pytest.mark.parametrize("pool", MAXIMA.values(), ids=MAXIMA.keys())
def test_largest_elements(pool):
    report = check(pool, IMAGE, roundings=0)
    assert calls(report).count("max_pool2d") == 1


@pytest.mark.parametrize("pool", MEANS.values(), ids=MEANS.keys())
def test_means(pool):
    report = check(pool, IMAGE, roundings=1, cancels=True)
    assert calls(report).count("avg_pool2d") == 1


@pytest.mark.parametrize("channels", [1, 32, 65])
def test_channels_need_fill_no_tile(channels):
    check(lambda x: F.max_pool2d(x, 2), random(2, channels, 8, 8), roundings=0)


def test_negative_elements_beat_padding():
    check(lambda x: F.max_pool2d(x, 3, 1, 1), -positive(2, 6, 9, 11), roundings=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_floats(dtype):
    check(lambda x: F.max_pool2d(x, 2), IMAGE.to(dtype), roundings=0)


@pytest.mark.parametrize("size", [(2, 7), (4, 11), (13, 3)], ids=str)
def test_means_of_windows_of_different_sizes_are_products_with_a_matrix(size):
    report = check(lambda x: F.adaptive_avg_pool2d(x, size), IMAGE, roundings=3, cancels=True)
    assert set(calls(report)) <= {"matmul", "transpose"}


def test_means_of_windows_of_a_signal_of_different_sizes():
    report = check(lambda x: F.adaptive_avg_pool1d(x, 4), random(2, 6, 30), roundings=3, cancels=True)
    assert calls(report) == ["matmul"]


def test_the_mean_of_a_whole_image_is_a_reduction():
    report = check(lambda x: F.adaptive_avg_pool2d(x, 1), IMAGE, roundings=2, cancels=True)
    assert "mean" in calls(report)


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
    assert unsharded(report) == ["permute", "reshape", "max_pool2d", "avg_pool2d", "reshape", "permute"]


INDEXED = {
    "of a pool": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "alone": lambda x: F.max_pool2d(x, 2, return_indices=True)[1],
    "of an adaptive pool": lambda x: F.adaptive_max_pool2d(x, (3, 11), return_indices=True),
}


@pytest.mark.parametrize("pool", INDEXED.values(), ids=INDEXED.keys())
def test_where_the_largest_element_lies_is_torchs_choice(pool):
    assert "equal maxima" in falls_back(pool, IMAGE.round()).reason


VOLUMES = [
    lambda x: F.avg_pool3d(x, 2, padding=1),
    lambda x: F.max_pool3d(x, 2),
    lambda x: F.adaptive_avg_pool3d(x, (1, 3, 5)),
    lambda x: F.adaptive_max_pool3d(x, (1, 3, 5)),
]


@pytest.mark.parametrize("pool", VOLUMES)
def test_volumes_stay_on_the_host(pool):
    assert "three dimensions" in falls_back(pool, IMAGE).reason


def test_maxima_of_windows_of_different_sizes_stay_on_the_host():
    assert "pool" in falls_back(lambda x: F.adaptive_max_pool2d(x, (2, 7)), IMAGE).node


def test_integers_stay_on_the_host():
    x = (IMAGE * 1e7).long()
    outputs, report = compiled(lambda x: F.max_pool2d(x, 2), x)
    assert torch.equal(outputs, F.max_pool2d(x, 2))
    assert report.device_nodes == 0
