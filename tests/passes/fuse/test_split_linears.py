"""A linear that is read in parts becomes one for each part; one that anything else reads stays whole."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, constant_nodes
from tt_dynamo.passes.fuse.epilogues import fuse_linear_activation
from tt_dynamo.passes.fuse.linears import split_linears
from tt_dynamo.passes.normalize.canonicalize import canonicalize

WIDTH = 12


def projection(bias, out=2 * WIDTH):
    torch.manual_seed(0)
    return nn.Linear(WIDTH, out, bias=bias)


def divided(forward, *members):
    graph = capture(Module(*members, forward=forward), random(2, 5, WIDTH))
    graph.apply(canonicalize, exact=False)
    return graph, graph.apply(split_linears, exact=False)


def phi3(self, x):
    gate, up = self.p0(x).chunk(2, dim=-1)
    return F.silu(gate) * up


def sliced(self, x):
    both = self.p0(x)
    return F.silu(both[..., :WIDTH]) * both[..., WIDTH:]


def sizes(self, x):
    gate, up = self.p0(x).split([WIDTH, WIDTH], dim=-1)
    return up * F.silu(gate)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("forward", [phi3, sliced, sizes])
def test_a_gate_and_what_it_gates_are_linears_of_their_own(forward, bias):
    graph, changed = divided(forward, projection(bias))
    assert changed == 1
    graph.apply(fuse_linear_activation, exact=False)
    assert sorted(n.args[3] if len(n.args) > 3 else "" for n in graph.calls(operators.linear)) == ["", "silu"]
    assert not graph.calls(aten.split.Tensor, aten.silu.default)
    assert constant_nodes(graph.graph).issuperset(graph.calls(aten.slice.Tensor))


@pytest.mark.parametrize("cut", [lambda y: y.chunk(2, dim=-1), lambda y: (y[..., :WIDTH], y[..., WIDTH:])])
def test_an_activation_of_all_columns_is_one_of_each_part(cut):
    def gmlp(self, x):
        u, v = cut(F.gelu(self.p0(x)))
        return u * v.sum(-1, keepdim=True)

    graph, changed = divided(gmlp, projection(True))
    assert changed == 1
    graph.apply(fuse_linear_activation, exact=False)
    assert [node.args[3] for node in graph.calls(operators.linear)] == ["gelu", "gelu"]
    assert constant_nodes(graph.graph).issuperset(graph.calls(aten.slice.Tensor, aten.split.Tensor))


def test_columns_that_nothing_reads_are_not_computed():
    def forward(self, x):
        first, _, last = self.p0(x).split([4, 8, 12], dim=-1)
        return first.sum(-1) + last.sum(-1)

    graph, changed = divided(forward, projection(True))
    assert changed == 1
    assert sorted(n.meta["val"].shape[-1] for n in graph.calls(operators.linear)) == [4, 12]


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: (lambda y: y[..., :WIDTH] * y.sum(-1, keepdim=True))(s.p0(x)),  # all of it is read as well
        lambda s, x: (lambda y: y[..., :14] * y[..., 10:])(s.p0(x)),  # columns that both read
        lambda s, x: (lambda y: y[..., ::2] * y[..., 1::2])(s.p0(x)),  # every other column
        lambda s, x: (lambda y: y[:, :2] * y[:, 2:4])(s.p0(x)),  # rows
        lambda s, x: s.p0(x)[..., :WIDTH] * 2,  # one part
        lambda s, x: (lambda y: y[..., :14] * y[..., 10:])(s.p0(x).relu()),
        lambda s, x: (lambda y: y[..., :WIDTH] * y[..., WIDTH:])(F.linear(x, s.p0.weight * x.sum())),  # no constant
    ],
)
def test_other_linears_stay_whole(forward):
    graph, changed = divided(forward, projection(False))
    assert changed == 0
    assert len(graph.calls(operators.linear)) == 1
