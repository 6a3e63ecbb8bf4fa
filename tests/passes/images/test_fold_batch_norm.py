"""Batch norms become part of the convolution before them."""

from __future__ import annotations

import pytest
import torch
from captured import Module, capture, random, with_statistics
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.images.norms import fold_batch_norm
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.constants import fold_constants

NORM = aten._native_batch_norm_legit_no_training.default


@pytest.mark.parametrize(
    "convolution, norm, shape",
    [
        (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), (2, 4, 5, 7)),
        (nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False), (2, 4, 5, 7)),
        (nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), (2, 4, 5, 7)),
        (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), (2, 4, 7)),
        (nn.ConvTranspose2d(4, 6, 3, 2), nn.BatchNorm2d(6), (2, 4, 5, 7)),
        (nn.ConvTranspose2d(4, 6, 3, 2, groups=2, bias=False), nn.BatchNorm2d(6), (2, 4, 5, 7)),
    ],
    ids=str,
)
def test_a_batch_norm_becomes_part_of_its_convolution(convolution, norm, shape):
    graph = capture(nn.Sequential(convolution, with_statistics(norm)), random(*shape))
    assert graph.apply(fold_batch_norm, exact=False) == 1
    graph.apply(fold_constants, exact=False)
    assert graph.targets() == [aten.convolution.default]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 4), (2, 5, 4)])
def test_a_batch_norm_becomes_part_of_the_linear_of_its_rows(bias, shape):
    model = Module(
        nn.Linear(4, 6, bias=bias),
        with_statistics(nn.BatchNorm1d(6)),
        forward=lambda m, x: m.p1(m.p0(x).flatten(0, -2)).view(*shape[:-1], 6),
    )
    graph = capture(model, random(*shape))
    graph.apply(canonicalize, fold_batch_norm, fold_constants, exact=False)
    assert not graph.calls(NORM) and len(graph.calls(operators.linear)) == 1


def test_weights_of_few_digits_are_folded_in_float32():
    model = nn.Sequential(nn.Conv2d(4, 6, 3), with_statistics(nn.BatchNorm2d(6))).bfloat16()
    graph = capture(model, random(2, 4, 5, 7).bfloat16())
    assert fold_batch_norm(graph.graph, graph.context) == 1
    found = graph.run()[0]
    expected = model.float()(random(2, 4, 5, 7).bfloat16().float())
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).norm() < 0.01 * expected.norm()


STAYING = {
    "in training": (nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)).train(), random(2, 4, 5, 7)),
    "behind something else": (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4)).eval(), random(2, 4, 5, 7)),
    "of a convolution that something else reads": (
        Module(
            nn.Conv2d(4, 6, 3),
            nn.BatchNorm2d(6).eval(),
            forward=lambda m, x: _twice(m, x),
        ),
        random(2, 4, 5, 7),
    ),
}


def _twice(m, x):
    y = m.p0(x)
    return m.p1(y) + y


@pytest.mark.parametrize("name", STAYING)
def test_other_batch_norms_stay(name):
    graph = capture(*STAYING[name])
    assert graph.apply(fold_batch_norm) == 0


def test_weights_that_the_graph_computes_stay():
    def forward(m, x, w):
        return m.p0(torch.conv2d(x, w))

    graph = capture(Module(with_statistics(nn.BatchNorm2d(6)), forward=forward), random(2, 4, 5, 7), random(6, 4, 3, 3))
    assert graph.apply(fold_batch_norm) == 0
    assert graph.calls(NORM)
