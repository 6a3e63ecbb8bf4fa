"""What is permuted for a reduction over columns is reduced over rows as it lies, and constant weights are a product."""

import pytest
import torch
from captured import Module, capture, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.weighted_sums import fuse_weighted_sums
from tt_dynamo.passes.moves.permutes import hoist_permutes
from tt_dynamo.passes.moves.reductions import reduce_rows
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import is_constant


def permutes_of(graph):
    return [node for node in graph.calls(aten.permute.default) if not is_constant(node)]


def pooled(self, x):
    return x.transpose(1, 2).mean(2)


def of_images(self, x):
    return x[None].permute(0, 3, 1, 2).exp().sum([2, 3])


def kept(self, x):
    return x.transpose(1, 2).exp().sum(-1, keepdim=True)


def attentive(self, x):
    """Statistics of a signal by weights that it gives itself."""
    y = x.transpose(1, 2)
    return (y * y.exp().softmax(2)).sum(2)


@pytest.mark.parametrize("forward", [pooled, of_images, kept, attentive])
def test_rows_are_reduced_as_they_lie(forward):
    graph = capture(Module(forward=forward), random(2, 6, 5))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(reduce_rows, exact=False) == 1 and not permutes_of(graph)


def of_columns(self, x):
    return x.sum(-1)


def of_permuted_rows(self, x):
    return x.transpose(1, 2).sum(1)


@pytest.mark.parametrize("forward", [of_columns, of_permuted_rows])
def test_others_stay(forward):
    graph = capture(Module(forward=forward), random(2, 6, 5))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(reduce_rows, exact=False) == 0


def test_a_sum_by_constant_weights_is_a_product():
    graph = capture(Module(forward=lambda self, x: (x.transpose(1, 2) * torch.arange(6.0)).sum(2)), random(2, 6, 5))
    assert graph.apply(canonicalize, reduce_rows, fuse_weighted_sums, exact=False) == 1
    assert graph.only(aten.matmul.default) and not graph.calls(aten.sum.dim_IntList)


def test_weights_that_are_computed_stay():
    graph = capture(Module(forward=lambda self, x, w: (x * w).sum(1, True)), random(2, 6, 5), random(1, 6, 1))
    assert graph.apply(canonicalize, fuse_weighted_sums, exact=False) == 0


def repeated(self, x):
    """What Res2Nets with statistics read: a signal beside its mean."""
    y = x.transpose(1, 2)
    mean = x.mean(1)[..., None]
    return torch.cat([y, mean.repeat(1, 1, 6), mean.expand(-1, -1, 6)], 1).transpose(1, 2)


def test_repeats_are_permuted_with_what_they_stand_beside():
    graph = capture(Module(forward=repeated), random(2, 6, 5))
    graph.apply(canonicalize, exact=False)
    graph.apply(hoist_permutes, exact=False)
    assert not permutes_of(graph)
