"""Resized images become pixels that are repeated or picked, or products with torch's own weights."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.normalize.canonicalize import canonicalize

IMAGE = random(2, 6, 9, 11)


def rewritten(model, *inputs, exact=False):
    graph = capture(model, *inputs)
    return graph, graph.apply(canonicalize, channels_last, exact=exact)


def resized(**options):
    return lambda x: F.interpolate(x, **options)


REPEATED = [{"scale_factor": 2}, {"size": (18, 33)}, {"scale_factor": 3, "mode": "nearest-exact"}]
PICKED = [{"scale_factor": 1.5}, {"size": (4, 33)}, {"size": (5, 5), "mode": "nearest-exact"}]
WEIGHED = [{"scale_factor": 1.7}, {"size": (4, 33)}, {"size": (4, 5), "antialias": True}]


@pytest.mark.parametrize("options", REPEATED, ids=str)
def test_pixels_are_repeated(options):
    graph, changed = rewritten(resized(**options), IMAGE, exact=True)
    assert changed == 1
    assert graph.only(operators.repeat_pixels)


@pytest.mark.parametrize("size", [(10, 10), (20, 20)])
def test_small_images_of_convolutions_that_fill_no_tiles_are_repeated_by_a_product(size):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, 1), nn.SiLU(), nn.Upsample(scale_factor=2)).eval()
    graph = capture(model, random(1, 64, *size))
    graph.apply(canonicalize, channels_last, exact=False)
    assert len(graph.calls(operators.linear, aten.matmul.default)) == 1 and not graph.calls(operators.repeat_pixels)


def test_small_images_of_the_caller_keep_their_infinities():
    image = random(1, 64, 10, 10)
    image[0, 0, 3, 3] = -torch.inf
    graph, changed = rewritten(resized(scale_factor=2), image, exact=True)
    assert changed == 1
    assert graph.only(operators.repeat_pixels)


# Pixels that fill tiles, many of them, and images of a batch, which would be products of their own.
@pytest.mark.parametrize("shape", [(1, 64, 8, 8), (1, 64, 45, 45), (2, 64, 10, 10)], ids=str)
def test_other_images_are_repeated_by_rows(shape):
    graph, _ = rewritten(resized(scale_factor=2), random(*shape), exact=True)
    assert graph.only(operators.repeat_pixels)


@pytest.mark.parametrize("options", [{"scale_factor": 2}, {"size": (4, 33)}], ids=str)
def test_what_follows_takes_the_image_as_it_is_resized(options):
    model = nn.Sequential(nn.Upsample(**options), nn.ReLU())
    graph = capture(model, IMAGE)
    graph.apply(canonicalize, channels_last, exact=True)
    height, width = model(IMAGE).shape[-2:]
    assert graph.only(aten.relu.default).meta["val"].shape == (1, 1, 2 * height * width, 6)


@pytest.mark.parametrize("options", PICKED, ids=str)
def test_pixels_are_picked(options):
    graph, changed = rewritten(resized(**options), IMAGE, exact=True)
    assert changed == 1
    assert graph.only(aten.embedding.default)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("options", WEIGHED, ids=str)
@pytest.mark.parametrize("align_corners", [False, True])
def test_rows_and_columns_are_weighed(mode, options, align_corners):
    if align_corners and "scale_factor" in options:
        options = {**options, "recompute_scale_factor": True}
    graph, changed = rewritten(resized(mode=mode, align_corners=align_corners, **options), IMAGE)
    assert changed == 1
    assert graph.only(operators.resample)


def test_what_keeps_its_size_needs_no_weights():
    graph, _ = rewritten(resized(size=(9, 5), mode="bilinear"), IMAGE)
    assert graph.only(operators.resample).args[1] is None


def test_one_row_or_column_is_no_identity():
    graph, _ = rewritten(resized(size=(1, 1), mode="bilinear", align_corners=True), IMAGE)
    assert None not in graph.only(operators.resample).args


def test_pools_of_windows_of_different_sizes_are_weighed():
    graph, changed = rewritten(nn.AdaptiveAvgPool2d((2, 7)), IMAGE)
    assert changed == 1
    assert graph.only(operators.resample)


@pytest.mark.parametrize(
    "model, x, target",
    [
        (resized(scale_factor=2, mode="bilinear"), IMAGE.double(), aten.upsample_bilinear2d.vec),
        (resized(scale_factor=2), IMAGE.double(), aten.upsample_nearest2d.vec),
    ],
)
def test_what_stays_on_the_host_stays_whole(model, x, target):
    graph, changed = rewritten(model, x, exact=True)
    assert changed == 0 and graph.only(target)


def test_a_constant_is_resized_once():
    model = Module(nn.Parameter(IMAGE), forward=lambda s, x: x + F.interpolate(s.p0, scale_factor=2, mode="bicubic"))
    graph, changed = rewritten(model, random(1))
    assert changed == 0
    assert graph.only(aten.upsample_bicubic2d.vec)
