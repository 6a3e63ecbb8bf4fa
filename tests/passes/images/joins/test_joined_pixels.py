"""Pixels of images that end inside a tile are joined by products, behind those that fill their tiles."""

import pytest
import torch
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.images.joins.joined_pixels import join_pixels
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def joined(m, *images):
    return torch.cat([m.p0(x).flatten(2) for x in images], 2).sigmoid()


def applied(*sizes, batch=1, forward=joined):
    model = Module(nn.Conv2d(8, 12, 3, padding=1), forward=forward)
    graph = capture(model, *(random(batch, 8, *size) for size in sizes))
    return graph, graph.apply(canonicalize, channels_last, join_pixels, exact=False)


def products(graph):
    return [x for x in graph.calls(aten.matmul.default, operators.linear) if x.meta["val"].shape[-1] == 12]


@pytest.mark.parametrize("sizes", (((8, 8), (6, 6), (3, 5)), ((8, 8), (8, 4), (5, 5))))
def test_images_behind_the_first_that_fills_no_tiles_are_placed(sizes):
    graph, count = applied(*sizes)
    assert count == 1
    join = graph.only(aten.cat.default)
    assert all(part.meta["val"].shape[-2] % 32 == 0 for part in join.args[0])
    assert len(products(graph)) == sum(height * width % 32 > 0 for height, width in sizes)


def test_an_infinity_stays_in_its_channel():
    graph, _ = applied((8, 8), (6, 6), (3, 3))
    before = graph.run()[0]
    images = [x for x in graph.arguments if x.shape[:2] == (1, 8)]
    images[1][0, :, 2, 2] = torch.inf
    after = graph.run()[0]
    assert torch.equal(after[..., :64], before[..., :64])


@pytest.mark.parametrize(
    ("sizes", "batch"), ((((8, 8), (8, 4)), 1), (((6, 6), (8, 8)), 1), (((8, 8), (6, 6)), 2), (((8, 8), (160, 120)), 1))
)
def test_others_stay(sizes, batch):
    assert applied(*sizes, batch=batch)[1] == 0


def test_what_no_convolution_gives_stays():
    def forward(m, *images):
        return torch.cat([x.flatten(2).relu() for x in images], 2)

    assert applied((8, 8), (6, 6), forward=forward)[1] == 0
