"""A linear takes in the activation that alone reads it."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random, same
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.epilogues import fuse_linear_activation
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def fused(forward, *members):
    graph = capture(Module(*members, forward=forward), random(2, 5, 8))
    graph.apply(canonicalize, exact=False)
    return graph, graph.apply(fuse_linear_activation)


@pytest.mark.parametrize("name", operators.ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_and_its_activation_are_one(name, bias):
    graph, changed = fused(lambda s, x: operators.ACTIVATIONS[name](s.p0(x)), nn.Linear(8, 4, bias=bias))
    assert changed == 1
    linear = graph.only(operators.linear)
    assert linear.args[3] == name and (linear.args[2] is None) == (not bias)
    assert graph.graph.output_node().args[0] == (linear,)


def test_a_linear_that_something_else_reads_too_stays_alone():
    def forward(self, x):
        y = self.p0(x)
        return F.relu(y) + y

    graph, changed = fused(forward, nn.Linear(8, 4))
    assert changed == 0 and graph.calls(aten.relu.default)


def test_a_linear_that_two_activations_read_stays_alone():
    def forward(self, x):
        y = self.p0(x)
        return F.relu(y), F.silu(y)

    _, changed = fused(forward, nn.Linear(8, 4))
    assert changed == 0


def test_a_linear_that_is_returned_stays_alone():
    def forward(self, x):
        y = self.p0(x)
        return F.relu(y), y

    _, changed = fused(forward, nn.Linear(8, 4))
    assert changed == 0


@pytest.mark.parametrize("function", [F.leaky_relu, F.elu, torch.exp, torch.neg])
def test_other_functions_stay_alone(function):
    _, changed = fused(lambda s, x: function(s.p0(x)), nn.Linear(8, 4))
    assert changed == 0


def test_an_activation_of_something_else_stays_alone():
    _, changed = fused(lambda s, x: F.gelu(s.p0(x) * 2), nn.Linear(8, 4))
    assert changed == 0


def test_only_the_first_of_two_activations_joins():
    graph, changed = fused(lambda s, x: F.relu(F.silu(s.p0(x))), nn.Linear(8, 4))
    assert changed == 1
    assert graph.only(operators.linear).args[3] == "silu" and graph.calls(aten.relu.default)


def test_every_layer_is_fused():
    graph, changed = fused(lambda s, x: F.gelu(s.p1(F.relu(s.p0(x)))), nn.Linear(8, 4), nn.Linear(4, 8))
    assert changed == 2
    assert [linear.args[3] for linear in graph.calls(operators.linear)] == ["relu", "gelu"]


def test_an_activation_in_float32_is_one_with_a_linear_of_bfloat16():
    def forward(self, x):
        return torch.tanh(self.p0(x.bfloat16()).float()).bfloat16()

    graph = capture(Module(nn.Linear(8, 4).bfloat16(), forward=forward), random(2, 5, 8))
    canonicalize(graph.graph, graph.context)
    before = graph.run()
    assert fuse_linear_activation(graph.graph, graph.context) == 1
    same(graph.run(), before, exact=False)
    assert graph.only(operators.linear).args[3] == "tanh"


def test_an_activation_in_float32_that_is_read_so_stays_alone():
    def forward(self, x):
        return torch.tanh(self.p0(x.bfloat16()).float())

    graph = capture(Module(nn.Linear(8, 4).bfloat16(), forward=forward), random(2, 5, 8))
    canonicalize(graph.graph, graph.context)
    assert graph.apply(fuse_linear_activation) == 0
