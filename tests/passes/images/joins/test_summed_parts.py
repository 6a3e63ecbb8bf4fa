"""A convolution of one pixel of joined images whose channels fill no tiles is the sum of one of each."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.images.joins.summed_parts import REPEATS, sum_parts
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def joined(m, *parts):
    return m.p0(torch.cat(parts, 1)).relu()


def applied(widths, forward=joined, kernel=1, groups=1, bias=True):
    model = Module(nn.Conv2d(sum(widths), 8, kernel, padding=kernel // 2, groups=groups, bias=bias), forward=forward)
    graph = capture(model, *(random(2, width, 5, 6) for width in widths))
    return graph, graph.apply(canonicalize, sum_parts, exact=False)


@pytest.mark.parametrize("widths", ((16, 16), (16, 16, 16), (32, 24), (1, 64)))
@pytest.mark.parametrize("bias", (True, False))
def test_parts_that_fill_no_tiles_are_summed(widths, bias):
    graph, count = applied(widths, bias=bias)
    assert count == 1
    assert not graph.calls(aten.cat.default)
    assert len(graph.calls(aten.convolution.default)) == len(widths)
    assert sum(x.args[2] is not None for x in graph.calls(aten.convolution.default)) == bias


@pytest.mark.parametrize("widths", ((32, 64), (16, 16, 16, 16)))
def test_parts_that_fill_tiles_and_more_than_three_are_joined(widths):
    assert applied(widths)[1] == 0


@pytest.mark.parametrize("options", ({"kernel": 3}, {"groups": 2}))
def test_other_convolutions_read_the_join(options):
    assert applied((16, 24), **options)[1] == 0


def test_a_join_that_something_else_reads_stays():
    def forward(m, *parts):
        x = torch.cat(parts, 1)
        return m.p0(x), x.relu()

    assert applied((16, 16), forward)[1] == 0


def test_a_part_joined_twice_stays():
    assert applied((16, 16), lambda m, x, y: m.p0(torch.cat([x, x], 1)))[1] == 0


def test_rows_that_are_joined_stay():
    assert applied((16,), lambda m, x: m.p0(torch.cat([x, 2 * x], 2)))[1] == 0


def mixed(m, x, y):
    return m.p0(torch.cat([F.interpolate(x, scale_factor=2.0), y], 1)).relu()


def grown(*widths, forward=mixed):
    model = Module(nn.Conv2d(sum(widths), 32, 1), forward=forward)
    graph = capture(model, random(2, widths[0], 3, 5), random(2, widths[1], 6, 10))
    return graph, graph.apply(canonicalize, sum_parts, exact=False)


def test_pixels_are_mixed_before_they_are_repeated():
    graph, count = grown(64, 32)
    assert count == 1 and not graph.calls(aten.cat.default)
    assert [x.meta["val"].shape for x in graph.calls(*REPEATS)] == [(2, 32, 6, 10)]
    assert {x.meta["val"].shape for x in graph.calls(aten.convolution.default)} == {(2, 32, 3, 5), (2, 32, 6, 10)}


def cut(m, x, y):
    first, second = mixed(m, x, y).chunk(2, 1)
    return first * 2, second


def read_twice(m, x, y):
    x = F.interpolate(x, scale_factor=2.0)
    return m.p0(torch.cat([x, y], 1)), x.relu()


@pytest.mark.parametrize("forward", (cut, read_twice))
def test_what_else_reads_pixels_or_channels_leaves_the_join(forward):
    assert grown(64, 32, forward=forward)[1] == 0


def test_pixels_of_which_more_channels_are_made_are_joined():
    model = Module(nn.Conv2d(64, 64, 1), forward=mixed)
    graph = capture(model, random(2, 32, 3, 5), random(2, 32, 6, 10))
    assert graph.apply(canonicalize, sum_parts, exact=False) == 0
