"""Depthwise convolutions of parts of an image, each of which adds the one before, are some of all channels."""

import pytest
import torch
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.images.joins.channel_hierarchies import join_channel_hierarchies
from tt_dynamo.passes.normalize.canonicalize import canonicalize

SIZES = (4, 4, 4, 3)


def depthwise(size, kernel=3, **options):
    return nn.Conv2d(size, size, kernel, padding=kernel // 2, groups=size, **options)


def hierarchy(m, x, sizes=SIZES, adds=True):
    """As Res2Net and EdgeNeXt have it: each part is added to what the one before gave, and the last stays."""
    parts = x.split(sizes, 1)
    made, last = [], None
    for at, part in enumerate(parts[:-1]):
        last = getattr(m, f"p{at}")(part if last is None or not adds else last + part)
        made.append(last)
    return torch.cat([*made, parts[-1]], 1)


def joined(forward, *convolutions, channels=15):
    torch.manual_seed(0)
    graph = capture(Module(*convolutions, forward=forward), random(2, channels, 9, 8))
    return graph, graph.apply(canonicalize, join_channel_hierarchies, exact=False)


def kernels(graph):
    return [shape_of(convolution.args[1]) for convolution in graph.calls(aten.convolution.default)]


def moves(graph):
    targets = (aten.split.Tensor, aten.split_with_sizes.default, aten.slice.Tensor, aten.add.Tensor, aten.cat.default)
    return [node for node in graph.calls(*targets) if len(shape_of(node)) == 4 and shape_of(node)[2:] == (9, 8)]


@pytest.mark.parametrize("bias", [True, False])
def test_each_step_convolves_all_channels(bias):
    graph, changed = joined(hierarchy, *(depthwise(4, bias=bias) for _ in range(3)))
    assert changed == 1 and not moves(graph)
    assert kernels(graph) == [(15, 1, 3, 3), (15, 15, 3, 3), (15, 15, 3, 3)]


def test_parts_that_add_nothing_are_one_step():
    graph, changed = joined(lambda m, x: hierarchy(m, x, adds=False), depthwise(4), depthwise(4, 5), depthwise(4))
    assert changed == 1 and not moves(graph)
    assert kernels(graph) == [(15, 1, 5, 5)]


def test_one_part_is_convolved_where_it_lies():
    graph, changed = joined(lambda m, x: hierarchy(m, x, (8, 7)), depthwise(8))
    assert changed == 1 and kernels(graph) == [(15, 1, 3, 3)]


def test_kernels_of_other_sizes_and_biases_of_some():
    graph, changed = joined(hierarchy, depthwise(4, 5), depthwise(4, bias=False), depthwise(4, 1))
    assert changed == 1 and kernels(graph) == [(15, 1, 5, 5), (15, 15, 3, 3), (15, 15, 1, 1)]


def reversed_parts(m, x):
    a, b = x.split((8, 7), 1)
    return torch.cat([b, m.p0(a)], 1)


def read_twice(m, x):
    a, b = x.split((8, 7), 1)
    y = m.p0(a)
    return torch.cat([y, b], 1) + y.sum()


def without_the_rest(m, x):
    a, b, _ = x.split((4, 4, 7), 1)
    return torch.cat([m.p0(a), b], 1)


def along_rows(m, x):
    a, b = x.split((5, 4), 2)
    return torch.cat([m.p0(a), b], 2)


def of_two_images(m, x):
    a, b = x.split((8, 7), 1)[0], x.relu().split((8, 7), 1)[1]
    return torch.cat([m.p0(a), b], 1)


STAYING = {
    "another order": (reversed_parts, depthwise(8)),
    "read elsewhere": (read_twice, depthwise(8)),
    "of some channels": (without_the_rest, depthwise(4)),
    "of rows": (along_rows, depthwise(15)),
    "of two images": (of_two_images, depthwise(8)),
    "mixed channels": (lambda m, x: hierarchy(m, x, (8, 7)), nn.Conv2d(8, 8, 3, padding=1)),
}


@pytest.mark.parametrize("name", STAYING)
def test_other_joins_stay(name):
    assert joined(*STAYING[name])[1] == 0


def test_wide_images_stay():
    assert joined(lambda m, x: hierarchy(m, x, (400, 300)), depthwise(400), channels=700)[1] == 0
