"""A layer norm takes in the residual sum that it alone reads."""

import pytest
import torch
from captured import Module, capture, parameter, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.epilogues import fuse_residual_norm
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def fused(forward, *members, inputs=None):
    inputs = inputs or (random(2, 5, 8), random(2, 5, 8) + 1)
    graph = capture(Module(*members, forward=forward), *inputs)
    graph.apply(canonicalize)
    return graph, graph.apply(fuse_residual_norm)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 1e-12, 0.3])
def test_a_sum_and_its_norm_are_one(affine, eps):
    graph, changed = fused(lambda s, x, r: s.p0(x + r), nn.LayerNorm(8, eps, elementwise_affine=affine))
    assert changed == 1
    assert graph.targets() == [operators.add_layer_norm]
    node = graph.only(operators.add_layer_norm)
    assert node.args[4] == eps
    assert all(isinstance(operand, torch.fx.Node) == affine for operand in node.args[2:4])


def test_a_norm_without_bias_is_fused():
    graph, changed = fused(lambda s, x, r: s.p0(x + r), nn.LayerNorm(8, bias=False))
    assert changed == 1
    assert graph.only(operators.add_layer_norm).args[3] is None


def test_a_sum_that_is_read_again_stays():
    def pre_norm(self, x, residual):
        total = x + residual
        return total * self.p0(total)

    graph, changed = fused(pre_norm, nn.LayerNorm(8))
    assert changed == 0 and graph.calls(aten.layer_norm.default)


def test_a_sum_that_is_returned_stays():
    def forward(self, x, residual):
        total = x + residual
        return total, self.p0(total)

    _, changed = fused(forward, nn.LayerNorm(8))
    assert changed == 0


@pytest.mark.parametrize("shape", [(8,), (5, 8), (1, 5, 8), (2, 5, 1), (2, 1, 8)])
def test_a_residual_that_is_broadcast_stays_a_sum(shape):
    _, changed = fused(lambda s, x, r: s.p0(x + r), nn.LayerNorm(8), inputs=(random(2, 5, 8), random(*shape)))
    assert changed == 0
    _, changed = fused(lambda s, x, r: s.p0(r + x), nn.LayerNorm(8), inputs=(random(2, 5, 8), random(*shape)))
    assert changed == 0


def test_a_norm_over_several_dimensions_stays():
    _, changed = fused(lambda s, x, r: s.p0(x + r), nn.LayerNorm((5, 8)))
    assert changed == 0


@pytest.mark.parametrize(
    "total", [lambda x, r: x + 1.5, lambda x, r: torch.add(x, r, alpha=2), lambda x, r: x - r, lambda x, r: x * r]
)
def test_what_is_no_sum_of_two_tensors_stays(total):
    _, changed = fused(lambda s, x, r: s.p0(total(x, r)) + r, nn.LayerNorm(8))
    assert changed == 0


def test_operands_of_different_dtypes_stay_a_sum():
    inputs = (random(2, 5, 8), random(2, 5, 8).bfloat16())
    _, changed = fused(lambda s, x, r: s.p0(x + r), nn.LayerNorm(8), inputs=inputs)
    assert changed == 0


def test_a_sum_of_a_value_with_itself_is_fused():
    graph, changed = fused(lambda s, x, r: s.p0(r + r) + x, nn.LayerNorm(8))
    assert changed == 1


def test_a_residual_that_is_a_parameter_of_full_shape_is_fused():
    _, changed = fused(lambda s, x, r: s.p1(x + s.p0) + r, parameter(2, 5, 8), nn.LayerNorm(8))
    assert changed == 1
