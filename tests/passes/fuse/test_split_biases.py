"""Linears that are read with several biases add one each, and constants of products are cut in place of the product."""

import pytest
import torch
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.columns import cut_constants, split_biases
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def of_queries(shape):
    """Queries for what they mean and for where they stand."""

    def forward(self, x):
        query = self.p0(x).view(2, 5, 3, 4)
        return (query + self.p1.view(shape)).exp(), (query + self.p2).exp()

    return forward


def read_plain(self, x):
    query = self.p0(x).view(2, 5, 3, 4)
    return (query + self.p1.view(3, 4)).exp(), query.exp()


def by_head(self, x):
    return (self.p0(x).view(2, 5, 3, 4) + self.p1.view(12)[:3].view(3, 1)).exp()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("forward", "linears"), [(of_queries((3, 4)), 2), (of_queries((1, 1, 3, 4)), 2), (read_plain, 0), (by_head, 0)]
)
def test_each_bias_has_a_linear(forward, linears, bias):
    biases = [nn.Parameter(random(3, 4)) for _ in range(2)]
    graph = capture(Module(nn.Linear(6, 12, bias=bias), *biases, forward=forward), random(2, 5, 6))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(split_biases, exact=False) == bool(linears)
    if linears:
        sums = [node for node in graph.calls(aten.add.Tensor) if len(node.meta["val"].shape) > 1]
        assert len(graph.calls(operators.linear)) == linears and not sums


def one_part(self, x):
    return (x @ self.p0).view(2, 1, 5, 4)[..., 1:3].exp()


def one_of_two(self, x):
    return torch.matmul(x, self.p0).split(2, -1)[1].exp()


def both(self, x):
    first, second = torch.matmul(x, self.p0).split(2, -1)
    return first.exp() + second


@pytest.mark.parametrize(("forward", "changed"), [(one_part, 1), (one_of_two, 1), (both, 0)])
def test_the_constant_is_cut_where_one_part_is_read(forward, changed):
    graph = capture(Module(nn.Parameter(random(2, 6, 4)), forward=forward), random(2, 5, 6))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(cut_constants, exact=False) == changed
    cuts = graph.calls(aten.slice.Tensor, aten.split.Tensor)
    assert bool(changed) == all(cut.args[0].op == "placeholder" for cut in cuts)
