"""Resized images and signals: pixels repeated, picked or weighed."""

import pytest
import torch
import torch.nn.functional as F
from compiled import calls, check, compiled, falls_back, random, rounded
from torch import nn

IMAGE = random(2, 6, 9, 11)


def resized(**options):
    return lambda x: F.interpolate(x, **options)


def between_convolutions(channels, image, *layers):
    """The calls between two convolutions, but views."""
    model = nn.Sequential(nn.Conv2d(6, channels, 3, padding=1), *layers, nn.Conv2d(channels, 32, 3))
    called = calls(check(rounded(model), image, roundings=3, cancels=True))
    first, last = (index for index, call in enumerate(called) if call == "conv2d")
    return [call for call in called[first + 1 : last] if call != "reshape"]


@pytest.mark.parametrize("channels", [32, 256], ids=["by height", "in blocks"])
@pytest.mark.parametrize("factor", [2, (1, 3)], ids=str)
def test_pixels_are_repeated_in_shards(factor, channels):
    image = random(8, 6, 4, 4)
    assert between_convolutions(channels, image, nn.Upsample(scale_factor=factor)) == ["to_layout", "upsample"]


def test_repeated_pixels_are_tiles_in_shards_for_what_follows():
    layers = nn.Upsample(scale_factor=2), nn.Hardswish()
    assert between_convolutions(32, random(2, 6, 8, 8), *layers) == ["to_layout", "upsample", "to_layout", "hardswish"]


def test_pixels_that_fill_no_tiles_are_repeated_interleaved():
    called = between_convolutions(32, random(2, 6, 9, 11), nn.Upsample(scale_factor=2))
    assert called == ["to_memory_config", "to_layout", "upsample"]


@pytest.mark.parametrize("options", [{"mode": "nearest"}, {"mode": "bilinear"}, {"mode": "bicubic"}], ids=str)
def test_gradients_are_eager_torchs(options):
    def gradient(call):
        x = IMAGE.clone().requires_grad_()
        (call(x * 2) * random(2, 6, 15, 18)).sum().backward()
        return x.grad

    torch._dynamo.reset()
    function = resized(scale_factor=1.7, **options)
    ours, eager = gradient(torch.compile(function, backend="ttnn", dynamic=False)), gradient(function)
    torch.testing.assert_close(ours, eager, rtol=0.02, atol=0.02)


def test_sizes_may_change_between_calls():
    torch._dynamo.reset()
    ours = torch.compile(resized(scale_factor=2, mode="bilinear"), backend="ttnn", dynamic=True)
    for size in (5, 8):
        x = random(1, 3, size, size)
        expected = F.interpolate(x, scale_factor=2, mode="bilinear")
        torch.testing.assert_close(ours(x), expected, rtol=0.02, atol=0.03)


STAYING = {
    "upsample_bilinear2d": (resized(scale_factor=2, mode="bilinear"), IMAGE.double()),
    "upsample_nearest2d": (resized(scale_factor=2), IMAGE.double()),
}


@pytest.mark.parametrize("name", STAYING)
def test_what_stays_on_the_host_is_one_operation(name):
    assert name in falls_back(*STAYING[name]).node


def test_torch_itself_is_not_changed():
    compiled(resized(scale_factor=2), IMAGE)
    graph = torch.fx.experimental.proxy_tensor.make_fx(resized(scale_factor=2))(IMAGE)
    assert not any("tt_dynamo" in str(node.target) for node in graph.graph.nodes)
