"""The number that multiplies what a linear gives goes into its weights, and into nothing that others read."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.scales import fold_offsets, fold_scales
from tt_dynamo.passes.heads.qkv import fuse_qkv
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import is_constant


@pytest.fixture
def x():
    return random(2, 5, 24)


def folded(forward, *inputs, bias=True, count=1):
    torch.manual_seed(0)
    members = [nn.Linear(24, 24, bias=bias) for _ in range(count)]
    graph = capture(Module(*members, forward=forward), *inputs)
    graph.apply(canonicalize, exact=False)
    return graph, graph.apply(fold_scales, exact=False)


def heads_of(x):
    return x.view(x.shape[0], x.shape[1], 3, 8).transpose(1, 2)


SPELLINGS = {
    "multiplied": lambda self, x: self.p0(x) * 0.3,
    "divided": lambda self, x: self.p0(x) / 3,
    "behind its heads": lambda self, x: heads_of(self.p0(x)) * 0.3,
    "before its heads": lambda self, x: heads_of(self.p0(x) * 0.3),
    "twice": lambda self, x: heads_of(self.p0(x) * 0.3) * 0.5,
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", SPELLINGS)
def test_a_number_goes_into_the_weights(name, bias, x):
    graph, changed = folded(SPELLINGS[name], x, bias=bias)
    assert changed == (2 if name == "twice" else 1)
    weights = graph.only(operators.linear).args[1:]
    assert [w is not None and w.target is aten.mul.Tensor for w in weights] == [True, bias][: len(weights)]
    assert not [n for n in graph.calls(aten.mul.Tensor, aten.div.Tensor) if n not in weights and name != "twice"]


def test_a_scaled_query_shares_a_linear_with_key_and_value(x):
    def forward(self, x):
        q, k, v = heads_of(self.p0(x) * 0.3), heads_of(self.p1(x)), heads_of(self.p2(x))
        return F.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2).flatten(2)

    graph, changed = folded(forward, x, count=3)
    assert changed == 1
    assert graph.apply(fuse_qkv, exact=False) == 1
    assert len(graph.calls(operators.linear)) == 1


def read_twice(self, x):
    y = self.p0(x)
    return y * 0.3 + y


def heads_read_twice(self, x):
    y = heads_of(self.p0(x))
    return y * 0.3, y


def activated(self, x):
    return torch.relu(self.p0(x)) * 0.3


def by_a_tensor(self, x):
    return self.p0(x) * x


@pytest.mark.parametrize("forward", [read_twice, heads_read_twice, activated, by_a_tensor], ids=lambda f: f.__name__)
def test_what_others_read_or_compute_on_stays(forward, x):
    assert folded(forward, x)[1] == 0


def test_weights_that_are_inputs_stay(x):
    assert folded(lambda self, x, w: F.linear(x, w) * 0.3, x, random(7, 24))[1] == 0


def by_columns(self, x):
    return self.p0(x * self.p1)


def by_a_number_in_a_tensor(self, x):
    return self.p0(x * self.p1.sum())


@pytest.mark.parametrize("forward", [by_columns, by_a_number_in_a_tensor])
@pytest.mark.parametrize("bias", [True, False])
def test_what_multiplies_the_input_of_a_linear_goes_into_the_rows_of_its_weight(forward, bias, x):
    torch.manual_seed(0)
    graph = capture(Module(nn.Linear(24, 7, bias=bias), nn.Parameter(random(24)), forward=forward), x)
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fold_scales, exact=False) == 1
    (read,) = [n for n in graph.calls(operators.linear) if n.args[0].op == "placeholder"]
    assert read.args[1].target is aten.mul.Tensor


def by_rows(self, x):
    return self.p0(x * self.p1)


def read_elsewhere(self, x):
    y = x * self.p2
    return self.p0(y) + y.sum()


@pytest.mark.parametrize("forward", [by_rows, read_elsewhere])
def test_what_multiplies_rows_or_is_read_elsewhere_stays_before_the_linear(forward, x):
    members = nn.Linear(24, 7), nn.Parameter(random(5, 1)), nn.Parameter(random(24))
    graph = capture(Module(*members, forward=forward), x)
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fold_scales) == 0


@pytest.mark.parametrize("bias", [True, False])
def test_a_number_that_is_added_goes_into_the_bias(bias, x):
    graph = capture(Module(nn.Linear(24, 7, bias=bias), forward=lambda self, x: self.p0(x) + 1.0), x)
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fold_offsets, exact=False) == 1
    linear = graph.only(operators.linear)
    assert graph.graph.output_node().args[0] == (linear,) and linear.args[2] is not None


def test_a_vector_that_is_added_goes_into_the_bias(x):
    members = nn.Linear(24, 7), nn.Parameter(random(7))
    graph = capture(Module(*members, forward=lambda self, x: self.p0(x) + self.p1), x)
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fold_offsets, exact=False) == 1
    assert graph.only(operators.linear).args[2] is not None
    assert all(map(is_constant, graph.calls(aten.add.Tensor)))
