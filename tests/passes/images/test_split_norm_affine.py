"""Weights and biases of channels stand beside their norms, as constants."""

from __future__ import annotations

import operator

import pytest
import torch
from captured import Module, capture, parameter, random, with_statistics
from torch import nn

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.images.norms import split_norm_affine
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.constants import fold_constants


@pytest.mark.parametrize(
    "norm, shape",
    [
        (nn.BatchNorm1d(6), (5, 6)),
        (nn.BatchNorm1d(6), (5, 6, 7)),
        (nn.BatchNorm2d(6), (2, 6, 3, 4)),
        (nn.BatchNorm2d(6, affine=False), (2, 6, 3, 4)),
        (nn.BatchNorm3d(6), (2, 6, 2, 3, 4)),
    ],
    ids=str,
)
def test_a_batch_norm_in_evaluation_is_a_scale_and_a_shift_that_are_constants(norm, shape):
    graph = capture(with_statistics(norm), random(*shape))
    assert graph.apply(split_norm_affine, exact=False) == 1
    graph.apply(canonicalize, fold_constants, exact=False)
    assert graph.targets() == [aten.addcmul.default]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_group_norm_keeps_the_groups_and_loses_the_channels(dtype):
    graph = capture(with_statistics(nn.GroupNorm(3, 6)), random(2, 6, 3, 4).to(dtype))
    if dtype == torch.float32:
        assert graph.apply(split_norm_affine, exact=False) == 1
    else:
        assert split_norm_affine(graph.graph, graph.context) == 1
    assert graph.only(aten.group_norm.default).args[2:4] == (None, None)
    assert graph.only(aten.addcmul.default).meta["val"].dtype == dtype


@pytest.mark.parametrize("weight, bias, target", [(True, False, aten.mul.Tensor), (False, True, aten.add.Tensor)])
def test_a_weight_or_a_bias_alone_is_a_product_or_a_sum(weight, bias, target):
    def forward(m, x):
        return torch.native_group_norm(x, m.p0 if weight else None, m.p1 if bias else None, 2, 6, 12, 3, 1e-5)[0]

    graph = capture(Module(parameter(6), parameter(6), forward=forward), random(2, 6, 3, 4))
    assert graph.apply(split_norm_affine, exact=False) == 1
    assert graph.calls(target)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_norm_without_statistics_is_a_group_norm_of_one_image(batch):
    graph = capture(nn.BatchNorm2d(6, track_running_stats=False), random(batch, 6, 3, 4))
    assert graph.apply(split_norm_affine, exact=False) == 1
    assert [norm.args[1] for norm in graph.calls(aten.group_norm.default)] == [6] * (batch == 1)
    assert [norm.args[1] for norm in graph.calls(aten._native_batch_norm_legit.no_stats)] == [None] * (batch > 1)


def test_statistics_that_are_read_keep_the_norm_and_its_other_results():
    def forward(m, x):
        y, mean, deviation = torch.native_group_norm(x, m.p0, m.p1, 2, 6, 12, 3, 1e-5)
        return y, deviation, mean

    graph = capture(Module(parameter(6), parameter(6), forward=forward), random(2, 6, 3, 4))
    assert graph.apply(split_norm_affine, exact=False) == 1
    assert graph.only(aten.native_group_norm.default).args[1:3] == (None, None)
    assert len(graph.calls(operator.getitem)) == 3


def test_running_statistics_are_updated_as_before():
    graph = capture(nn.BatchNorm2d(6).train(), random(2, 6, 3, 4))
    assert graph.apply(split_norm_affine, exact=False) == 1
    assert graph.only(aten._native_batch_norm_legit_functional.default).args[1:3] == (None, None)
