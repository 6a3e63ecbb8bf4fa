"""Norms of every kind, and what training keeps of them."""

import pytest
import torch
from compiled import calls, check, compiled, random, rounded
from torch import nn
from torch.nn import functional


class Pixels(nn.Module):
    """A block of ConvNeXt: what follows its convolution works on each pixel, channels last."""

    def __init__(self):
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.LayerNorm(6)
        self.wide, self.narrow = nn.Linear(6, 9), nn.Linear(9, 6)
        self.scale = nn.Parameter(torch.ones(6, 1, 1))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(functional.gelu(self.wide(y)))
        return self.depthwise(x + self.scale * y.permute(0, 3, 1, 2))


def test_a_norm_of_pixels_takes_the_image_as_a_convolution_leaves_it():
    found = calls(check(rounded(Pixels()), random(2, 6, 9, 11), roundings=9, cancels=True))
    first, last = (index for index, call in enumerate(found) if call == "conv2d")
    assert found[first + 1 : last] == ["to_memory_config", "layer_norm", "linear", "linear", "add"]


@pytest.mark.parametrize(("batch", "launches"), [(1, 2), (2, 3)])
def test_a_computed_scale_and_shift_are_operands_of_the_norm_where_all_rows_share_them(batch, launches):
    def adaptive(x, scale, shift):
        return functional.layer_norm(x, [64], eps=1e-6) * (1 + scale) + shift

    operands = random(batch, 40, 64), random(batch, 1, 64), random(batch, 1, 64)
    report = check(adaptive, *operands, roundings=4, cancels=True)
    assert report.launches["ttnn.layer_norm"] == 1
    assert report.device_programs - report.movement.launches == launches


def test_running_statistics_are_float32_on_the_device():
    mean, variance = torch.full((6,), 100.0), torch.full((6,), 100.0)
    x = random(2, 6, 4, 5, mean=50.0)

    def train(x, mean, variance):
        return torch.ops.aten._native_batch_norm_legit_functional(x, None, None, mean, variance, True, 0.001, 1e-5)[3:]

    outputs, report = compiled(train, x, mean, variance)
    assert not report.fallbacks
    for ours, eager in zip(outputs, train(x, mean, variance), strict=True):
        torch.testing.assert_close(ours - 100, eager - 100, rtol=0.02, atol=0)
