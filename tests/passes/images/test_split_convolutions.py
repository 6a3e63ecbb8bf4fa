"""A convolution of one pixel whose channels are cut apart is one for each part; others stay whole."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.images.split_convolutions import split_convolutions
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import is_constant

CUTS = (aten.slice.Tensor, aten.split.Tensor, aten.split_with_sizes.default)


def split(forward, kernel=1, groups=1, bias=True):
    convolution = nn.Conv2d(4, 12, kernel, padding=kernel // 2, groups=groups, bias=bias)
    graph = capture(Module(convolution, forward=lambda s, x: forward(s.p0(x))), random(2, 4, 6, 5))
    return graph, graph.apply(canonicalize, split_convolutions, exact=False)


def c2f(y):
    a, b = F.silu(y).chunk(2, 1)
    return torch.cat([a, b, b.tanh()], 1)


def res2net(y):
    parts = F.relu(y).split([3, 4, 5], 1)
    return [part + 1 for part in parts]


def gated(y):
    x, gates = y.split([9, 3], 1)
    return x * gates[:, :1] + x.exp() * gates[:, 1:2] + gates[:, 2:]


PARTS = [(c2f, 2), (res2net, 3), (gated, 4), (lambda y: y[:, :4] * y[:, :4].exp(), 1)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("forward", "parts"), PARTS)
def test_each_part_is_a_convolution(forward, parts, bias):
    graph, changed = split(forward, bias=bias)
    assert changed == 1 and len(graph.calls(aten.convolution.default)) == parts
    assert all(is_constant(node.args[0]) for node in graph.calls(*CUTS)), "only weights are cut"


@pytest.mark.parametrize(
    ("forward", "kernel", "groups"),
    [
        (c2f, 3, 1),
        (c2f, 1, 2),
        (lambda y: (y, y[:, :6].exp()), 1, 1),  # read whole
        (lambda y: y[:, :, 1:] * 2, 1, 1),  # rows
        (lambda y: y[:, ::2] * 2, 1, 1),
        (lambda y: (y[:, :8].exp(), y[:, 4:].exp()), 1, 1),  # parts that overlap
    ],
)
def test_others_stay_whole(forward, kernel, groups):
    graph, changed = split(forward, kernel, groups)
    assert changed == 0 and len(graph.calls(aten.convolution.default)) == 1
