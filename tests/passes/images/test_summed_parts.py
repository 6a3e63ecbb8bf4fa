"""A convolution of one pixel of joined images whose channels fill no tiles is the sum of one of each."""

import pytest
import torch
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.images.summed_parts import sum_parts
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
