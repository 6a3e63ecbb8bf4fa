"""Convolutions read channels where they were made: no slice, split or shuffle of channels is left for them."""

import pytest
import torch
import torch.nn.functional as F
from captured import Captured, capture, random
from torch import nn

from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.images.moved_channels import read_moved_channels
from tt_dynamo.passes.normalize.canonicalize import canonicalize

MOVES = (aten.slice.Tensor, aten.split.Tensor, aten.split_with_sizes.default, aten.permute.default)


class Convolutions(nn.Module):
    """Convolutions of [out, in, kernel, groups] that `steps` is called with, after the input."""

    def __init__(self, steps, *sizes):
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleList(nn.Conv2d(i, o, k, padding=k // 2, groups=g) for o, i, k, g in sizes)

    def forward(self, x):
        return self.steps(x, *self.layers)


def rewritten(steps, *sizes) -> tuple[Captured, int]:
    graph = capture(Convolutions(steps, *sizes), random(2, 8, 6, 5))
    return graph, graph.apply(canonicalize, read_moved_channels, exact=False)


def shuffle(x, groups=2):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def shuffle_units(x, first, *layers):
    """Two units of ShuffleNet, and a convolution by channel of all channels."""
    y = first(x).relu()
    for before, by_channel, after in (layers[:3], layers[3:6]):
        kept, z = y.chunk(2, 1)
        y = shuffle(torch.cat([kept, after(by_channel(before(z).relu())).relu()], 1))
    return layers[7](F.relu6(layers[6](y)))


UNIT = [(4, 4, 1, 1), (4, 4, 3, 4), (4, 4, 1, 1)]


def cross_stage(x, first, inner, last):
    """YOLO's stage without a residual."""
    parts = list(F.silu(first(x)).chunk(2, 1))
    parts.append(F.silu(inner(parts[-1])))
    return last(torch.cat(parts, 1))


def residual(x, first, inner, outer, last):
    """The same with one."""
    kept, y = F.silu(first(x)).chunk(2, 1)
    return last(torch.cat([kept, y, y + F.silu(outer(F.silu(inner(y))))], 1))


def mixed(x, first, one, other, last):
    """Convolutions of several sizes, each of some channels."""
    a, b = first(x).relu().split([4, 36], 1)
    return last(torch.cat([one(a), other(b)], 1))


@pytest.mark.parametrize(
    ("steps", "sizes", "count", "joins"),
    [
        (shuffle_units, [(8, 8, 1, 1), *UNIT, *UNIT, (8, 8, 3, 8), (3, 8, 1, 1)], 3, 2),
        (cross_stage, [(8, 8, 1, 1), (4, 4, 3, 1), (6, 12, 1, 1)], 2, 1),
        (lambda x, a, b: b(shuffle(a(x), 4)), [(8, 8, 3, 1), (2, 8, 3, 1)], 1, 0),
        (lambda x, a, b: a(x[:, 2:6]) + b(x[:, 6:]), [(4, 4, 1, 1), (4, 2, 3, 1)], 2, 0),
        (lambda x, a: a(x[:, 1:]), [(4, 7, 1, 1)], 1, 0),
        (lambda x, a, b: b(a(x[:, :4])[:, :4]), [(8, 4, 1, 1), (2, 4, 1, 1)], 2, 0),
    ],
)
def test_no_channel_moves(steps, sizes, count, joins):
    graph, changed = rewritten(steps, *sizes)
    assert changed == count and len(graph.calls(aten.cat.default)) == joins
    moves = [move for move in graph.calls(*MOVES) if move.args[0].op == "call_function" and len(shape_of(move)) == 4]
    assert not [move for move in moves if shape_of(move)[0] == 2], "of activations"


def test_parts_of_a_join_fill_their_tiles():
    graph, _ = rewritten(
        lambda x, a, b, c: c(torch.cat([a(x), F.silu(b(x))], 1)), (24, 8, 3, 1), (40, 8, 1, 1), (8, 64, 1, 1)
    )
    assert [shape_of(part)[1] for part in graph.only(aten.cat.default).args[0]] == [32, 64]


@pytest.mark.parametrize(
    ("steps", "sizes"),
    [
        (lambda x, a, b: b(a(x)[:, :4]) + a(x)[:, :4].sum(), [(8, 8, 1, 1), (8, 4, 1, 1)]),  # something else reads it
        (lambda x, a: a(torch.cat([x[:, :4], x[:, :4]], 1)), [(8, 8, 1, 1)]),  # twice the same
        (lambda x, a: a(x[:, :, :4]), [(8, 8, 1, 1)]),  # rows
        (lambda x, a: a(x[:, :4]), [(4, 4, 3, 4)]),  # nothing mixes them
        (lambda x, a: a(x[:, :4]), [(4, 4, 3, 2)]),
        (mixed, [(40, 8, 1, 1), (4, 4, 3, 4), (36, 36, 5, 36), (8, 40, 1, 1)]),  # each would work on all channels
        (residual, [(8, 8, 1, 1), (4, 4, 3, 1), (4, 4, 3, 1), (6, 12, 1, 1)]),  # a part is read by a sum
    ],
)
def test_other_channels_move(steps, sizes):
    graph, changed = rewritten(steps, *sizes)
    assert changed == 0
