"""Permutes that cancel across elementwise operations are gone; where no fewer would be left, they stay."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.moves.permutes import hoist_permutes
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import is_constant

SHAPE = (2, 5, 12)


def permutes_after(forward, *shapes, members=()):
    graph = capture(Module(*members, forward=forward), *(random(*shape) for shape in shapes or [SHAPE]))
    graph.apply(canonicalize, exact=False)
    graph.apply(hoist_permutes, exact=False)
    permutes = graph.graph.find_nodes(op="call_function", target=aten.permute.default)
    return sum(not is_constant(permute) for permute in permutes)


def between(self, x):
    return (F.silu(x.transpose(1, 2)) * 2 + 1).transpose(1, 2)


def with_ones(self, x):
    return (x.transpose(1, 2)[..., None].exp() * 2).permute(2, 0, 1, 3)


def read_twice(self, x):
    y = x.transpose(1, 2).exp()
    return y.sum(1), (y * 2).transpose(1, 2)


def single(self, x):
    return (x * 2).transpose(1, 2)


@pytest.mark.parametrize(("forward", "left"), [(between, 0), (with_ones, 1), (read_twice, 1), (single, 1)])
def test_elementwise_operations_run_in_the_order_of_fewest_permutes(forward, left):
    assert permutes_after(forward) == left


def sum_of_two(self, x, y):
    return (x.transpose(1, 2) + y.transpose(1, 2)).transpose(1, 2)


def test_operands_that_are_permuted_alike_are_read_as_they_are():
    assert permutes_after(sum_of_two, SHAPE, SHAPE) == 0


def joined(self, x):
    """The scales of a Res2Net: parts of the channels, each made of the one before."""
    one, two, three = x.split(4, 2)
    two = (one + two).exp()
    three = (two + three).exp()
    return torch.cat([part.transpose(1, 2) for part in (one, two, three)], 1)[:, :, None].permute(0, 2, 3, 1)


def test_what_is_permuted_alike_is_joined_before():
    assert permutes_after(joined) == 0


def chunked(self, x):
    one, other = self.p0(x).transpose(1, 2).chunk(2, 1)
    return (one * F.silu(other)).transpose(1, 2)


def test_columns_of_a_linear_are_cut_before_they_are_permuted():
    assert permutes_after(chunked, members=[nn.Linear(12, 24)]) == 0
