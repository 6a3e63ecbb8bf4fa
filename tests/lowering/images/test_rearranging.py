"""Images whose channels, rows and columns become others: as rows, once, and nothing else moves."""

import pytest
import torch
import torch.nn.functional as F
from compiled import calls, check, random, rounded
from torch import nn

SHUFFLED = {
    "pixels": lambda x: F.pixel_shuffle(x, 2),
    "pixels to channels": lambda x: F.pixel_unshuffle(x, 2),
    "channels": lambda x: F.channel_shuffle(x, 4),
}


class Between(nn.Module):
    """A function between two convolutions."""

    def __init__(self, function, x):
        super().__init__()
        self.first, self.function, self.last = nn.Conv2d(x.shape[1], 16, 1), function, nn.LazyConv2d(3, 1)
        with torch.no_grad():
            self(x)

    def forward(self, x):
        return self.last(torch.relu(self.function(self.first(x))))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", SHUFFLED)
def test_an_image_is_shuffled_as_rows(name, batch):
    x = random(batch, 6, 4, 6)
    report = check(rounded(Between(SHUFFLED[name], x)), x, roundings=4, cancels=True)
    found = calls(report)
    first, last = (index for index, call in enumerate(found) if call == "conv2d")
    between = found[first + 1 : last]
    if name == "channels":  # which the weights of the second convolution take in their order
        assert not between
    else:
        assert set(between) == {"to_layout", "reshape", "permute", "relu"} and between.count("permute") == 1


@pytest.mark.parametrize("batch, side", [(1, 16), (2, 16), (2, 8), (3, 24)])
@pytest.mark.parametrize("groups", [1, 8, 64])
def test_a_group_norm_between_convolutions(groups, batch, side):
    torch.manual_seed(0)
    norm = nn.GroupNorm(groups, 64)
    norm.weight.data, norm.bias.data = random(64, mean=1.0), random(64)
    model = nn.Sequential(nn.Conv2d(6, 64, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(64, 6, 1))
    report = check(rounded(model), random(batch, 6, side, side), roundings=8, cancels=True)
    assert calls(report).count("group_norm") == (groups < 64)
