"""Resized images and signals: pixels repeated, picked or weighed."""

import pytest
import torch
import torch.nn.functional as F
from compiled import calls, check, compiled, falls_back, random, rounded
from torch import nn

IMAGE = random(2, 6, 9, 11)


def resized(**options):
    return lambda x: F.interpolate(x, **options)


@pytest.mark.parametrize("factor", [2, 3, (2, 3), (1, 4), 2.0], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_whole_numbers_repeat_pixels(mode, factor):
    report = check(resized(scale_factor=factor, mode=mode), IMAGE, roundings=0)
    assert calls(report).count("upsample") == 1


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


PICKED = [
    {"size": (5, 20)},
    {"size": (4, 4)},
    {"scale_factor": 1.5},
    {"scale_factor": 0.4},
    {"scale_factor": 1.7, "recompute_scale_factor": True},
    {"size": (18, 20)},
]


@pytest.mark.parametrize("options", PICKED, ids=str)
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
def test_any_other_size_picks_pixels(mode, options):
    report = check(resized(mode=mode, **options), IMAGE, roundings=0)
    assert calls(report).count("embedding") == 1


def test_infinities_stay_where_they_are_picked():
    x = IMAGE.clone()
    x[:, :, 3, 4] = torch.inf
    check(resized(size=(5, 20)), x, roundings=0)


@pytest.mark.parametrize("size", [7, 60], ids=str)
def test_signals_are_picked_or_repeated(size):
    check(resized(size=size), random(2, 6, 30), roundings=0)


def test_volumes_are_picked():
    report = check(resized(size=(7, 3, 5)), IMAGE[None], roundings=0)
    assert "embedding" in calls(report)


WEIGHED = [
    {"scale_factor": 2, "mode": "bilinear"},
    {"size": (5, 20), "mode": "bilinear"},
    {"size": (5, 20), "mode": "bilinear", "align_corners": True},
    {"size": (1, 1), "mode": "bilinear", "align_corners": True},
    {"scale_factor": 1.7, "mode": "bilinear"},
    {"scale_factor": 1.7, "mode": "bilinear", "recompute_scale_factor": True},
    {"scale_factor": (1.5, 0.5), "mode": "bilinear"},
    {"size": (4, 5), "mode": "bilinear", "antialias": True},
    {"scale_factor": 2, "mode": "bicubic"},
    {"size": (5, 20), "mode": "bicubic", "align_corners": True},
    {"size": (4, 5), "mode": "bicubic", "antialias": True},
]


@pytest.mark.parametrize("options", WEIGHED, ids=str)
def test_rows_and_columns_are_weighed_by_two_products(options):
    report = check(resized(**options), IMAGE, roundings=3, cancels=True)
    assert calls(report) == ["matmul", "matmul"]


def test_images_of_several_tiles_are_weighed_by_two_products():
    report = check(resized(scale_factor=2, mode="bilinear"), random(2, 3, 40, 70), roundings=3, cancels=True)
    assert calls(report) == ["matmul", "matmul"]


def test_rows_alone():
    report = check(resized(size=(5, 11), mode="bilinear"), IMAGE, roundings=2, cancels=True)
    assert calls(report) == ["matmul", "transpose"]


def test_columns_alone():
    report = check(resized(size=(9, 20), mode="bilinear"), IMAGE, roundings=2, cancels=True)
    assert calls(report) == ["matmul"]


def test_a_signal_is_weighed_by_one_product():
    report = check(resized(size=20, mode="linear"), random(2, 6, 30), roundings=2, cancels=True)
    assert calls(report) == ["matmul"]


@pytest.mark.parametrize("options", [{"size": (9, 11)}, {"size": (9, 11), "mode": "bilinear"}], ids=str)
def test_the_same_size_is_a_copy(options):
    check(resized(**options), IMAGE + 1, roundings=1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_other_floats(mode, dtype):
    check(resized(scale_factor=2, mode=mode), IMAGE.to(dtype), roundings=4, cancels=True)


def test_areas_are_means():
    report = check(resized(size=(3, 11), mode="area"), IMAGE, cancels=True)
    assert "avg_pool2d" in calls(report)


def test_the_module_and_the_name_of_the_operand():
    check(torch.nn.Upsample(scale_factor=2), IMAGE, roundings=0)
    check(lambda x: F.interpolate(input=x, scale_factor=2), IMAGE, roundings=0)


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
    "upsample_trilinear3d": (resized(size=(7, 3, 5), mode="trilinear"), IMAGE[None]),
    "upsample_bilinear2d": (resized(scale_factor=2, mode="bilinear"), IMAGE.double()),
    "upsample_nearest2d": (resized(scale_factor=2), IMAGE.double()),
}


@pytest.mark.parametrize("name", STAYING)
def test_what_stays_on_the_host_is_one_operation(name):
    assert name in falls_back(*STAYING[name]).node


def test_sampling_at_computed_positions_stays_on_the_host():
    grid = random(2, 4, 5, 2).clamp(-1, 1)
    fallback = falls_back(lambda x, grid: F.grid_sample(x, grid, align_corners=False), IMAGE, grid)
    assert "bfloat16" in fallback.reason


def test_torch_itself_is_not_changed():
    compiled(resized(scale_factor=2), IMAGE)
    graph = torch.fx.experimental.proxy_tensor.make_fx(resized(scale_factor=2))(IMAGE)
    assert not any("tt_dynamo" in str(node.target) for node in graph.graph.nodes)
