"""Images that are hard to take: each gives eager torch's answer, or eager torch's error."""

from __future__ import annotations

import os

import pytest
import torch
from comparison import check
from torch import nn

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def network(channels: int = 3, width: int = 8) -> nn.Module:
    """Convolutions that halve their image, a pool that does, and a classifier."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(width, width, 3, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 5),
    ).eval()


@pytest.mark.parametrize(
    "shape",
    [(1, 3, 225, 223), (2, 1, 31, 33), (1, 2048, 13, 11)],
    ids=["odd sizes", "one channel", "2,048 channels"],
)
def test_an_image_of_an_odd_shape(shape):
    with torch.no_grad():
        (report,) = check(network(shape[1]), lambda: (torch.randn(shape),))
    assert not report.fallbacks


def test_2048_channels_that_stay_as_many():
    with torch.no_grad():
        (report,) = check(nn.Conv2d(2048, 2048, 3, padding=1, groups=32), lambda: (torch.randn(1, 2048, 7, 7),))
    assert not report.fallbacks


def test_a_batch_of_no_images():
    with torch.no_grad():
        check(network(), lambda: (torch.randn(0, 3, 32, 32),))


@pytest.mark.parametrize(
    "model", [nn.Conv2d(3, 4, 9), nn.MaxPool2d(9), nn.Conv1d(3, 4, 9)], ids=["conv2d", "pool", "conv1d"]
)
def test_a_kernel_larger_than_its_input_is_eager_s_error(model):
    x = torch.randn(1, 3, 7) if isinstance(model, nn.Conv1d) else torch.randn(1, 3, 7, 7)
    with torch.no_grad():
        with pytest.raises(RuntimeError) as eager:
            model(x)
        with pytest.raises(RuntimeError) as ours:
            torch.compile(model, backend="ttnn", options={"device": BOARD})(x)
    assert str(eager.value).splitlines()[0] in str(ours.value)


def test_a_kernel_larger_than_its_input_but_not_with_its_padding():
    with torch.no_grad():
        (report,) = check(nn.Conv2d(3, 4, 9, padding=2), lambda: (torch.randn(2, 3, 7, 6),))
    assert not report.fallbacks
