"""Expected values of bins: heads that fill tiles, whose new bins weigh nothing."""

import pytest
import torch
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.joined_sums import fuse_joined_sums
from tt_dynamo.passes.images.binned_channels import pad_bins
from tt_dynamo.passes.normalize.canonicalize import canonicalize

IMAGES = (random(2, 8, 6, 5), random(2, 8, 3, 3))


def expected(boxes, distances, bins=16):
    batch, channels, count = boxes.shape
    return distances(boxes.view(batch, channels // bins, bins, count).transpose(2, 1).softmax(1))


def of_levels(m, *images):
    boxes = torch.cat([conv(x).flatten(2) for conv, x in zip((m.p0, m.p1), images, strict=True)], 2)
    return expected(boxes, m.p2).view(2, 4, -1)


def decoded(m, *images):
    before, behind = of_levels(m, *images).chunk(2, 1)
    return torch.cat([(behind - before) / 2, before + behind], 1)


def applied(forward, *passes, bins=16, bias=True):
    convolutions = [nn.Conv2d(8, 4 * bins, 1, bias=bias) for _ in IMAGES]
    with torch.no_grad():
        for convolution in convolutions:
            convolution.weight *= 5.0
    graph = capture(Module(*convolutions, nn.Conv2d(bins, 1, 1, bias=False), forward=forward), *IMAGES)
    return graph, graph.apply(canonicalize, *passes, exact=False)


@pytest.mark.parametrize("bias", (True, False))
def test_bins_become_heads_of_whole_tiles(bias):
    graph, count = applied(of_levels, pad_bins, bias=bias)
    assert count == 1
    assert graph.only(operators.split_lone_heads).meta["val"].shape == (2, 4, 39, 32)
    assert graph.only(operators.merge_heads)


def test_one_image_needs_no_join():
    graph, count = applied(lambda m, x, _: expected(m.p0(x).flatten(2), m.p2), pad_bins)
    assert count == 1 and not graph.calls(aten.cat.default)


def test_a_product_behind_is_the_same_product():
    graph, _ = applied(decoded, fuse_joined_sums, pad_bins, canonicalize)
    moved = [x for x in graph.calls(operators.linear, aten.matmul.default) if x.meta["val"].shape[-1] != 128]
    assert len(moved) == 1


def test_extreme_logits_keep_their_bins():
    def forward(m, x, _):
        return expected((1e4 * m.p0(x)).flatten(2), m.p2), expected(m.p0(1e6 * x).flatten(2), m.p2)

    assert applied(forward, pad_bins)[1] == 1, "what a convolution gives; what else makes bins stays"


def also_read(m, x, _):
    boxes = m.p0(x).flatten(2)
    return expected(boxes, m.p2), boxes.relu()


def weights_read(m, x, _):
    weights = m.p0(x).flatten(2).view(2, 4, 16, -1).transpose(2, 1).softmax(1)
    return m.p2(weights), weights.amax(1)


def activated(m, x, _):
    return expected(m.p0(x).relu().flatten(2), m.p2)


@pytest.mark.parametrize("forward", (also_read, weights_read, activated))
def test_bins_that_something_else_reads_stay(forward):
    assert applied(forward, pad_bins)[1] == 0


@pytest.mark.parametrize("bins", (8, 32))
def test_bins_of_other_numbers_stay(bins):
    assert applied(lambda m, x, _: expected(m.p0(x).flatten(2), m.p2, bins), pad_bins, bins=bins)[1] == 0
