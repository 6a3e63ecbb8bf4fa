"""Depthwise convolutions of parts of an image's channels that are joined again are one convolution."""

import pytest
import torch
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.images.joins.mixed_kernels import join_mixed_kernels
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def joined(*convolutions, order=(0, 1, 2), forward=lambda y: y):
    def mixed(self, x):
        parts = x.split([4, 3, 5], 1)
        made = [getattr(self, f"p{at}")(parts[at]) for at in order]
        return forward(torch.cat(made, 1)) + (made[0].sum() if forward is read_twice else 0)

    torch.manual_seed(0)
    graph = capture(Module(*convolutions, forward=mixed), random(2, 12, 9, 8))
    return graph, graph.apply(canonicalize, join_mixed_kernels, exact=False)


def depthwise(*kernels, **options):
    return [
        nn.Conv2d(size, size, kernel, padding=kernel // 2, groups=size, **options)
        for size, kernel in zip((4, 3, 5), kernels, strict=True)
    ]


def read_twice(y):
    return y


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"stride": 2}], ids=str)
@pytest.mark.parametrize("kernels", [(3, 5, 7), (7, 1, 3), (3, 3, 3)], ids=str)
def test_the_largest_kernel_is_that_of_all_channels(kernels, options):
    graph, changed = joined(*depthwise(*kernels, **options))
    assert changed == 1
    (convolution,) = graph.calls(aten.convolution.default)
    assert shape_of(convolution.args[1]) == (12, 1, max(kernels), max(kernels))
    assert not [cut for cut in graph.calls(aten.split_with_sizes.default) if len(shape_of(cut.args[0])) == 4]


STAYING = {
    "another order": (depthwise(3, 5, 7), {"order": (1, 0, 2)}),
    "of the same part twice": (depthwise(3, 5, 7), {"order": (0, 1, 1)}),
    "of all channels of a part": (
        [*depthwise(3, 5, 7)[:2], nn.Conv2d(5, 5, 7, padding=(3, 3), dilation=1, groups=1)],
        {},
    ),
    "read elsewhere": (depthwise(3, 5, 7), {"forward": read_twice}),
}


@pytest.mark.parametrize("name", STAYING)
def test_other_joins_stay(name):
    convolutions, options = STAYING[name]
    assert joined(*convolutions, **options)[1] == 0
