"""Norms of constant scale and shift are computed once: after a join, in the norm before, in the linear behind."""

import pytest
import torch
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.shifts import fold_shifts
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def vectors(*widths):
    return [nn.Parameter(random(width)) for width in widths]


def folded(forward, *members, shapes=((1, 6, 8), (1, 6, 4))):
    graph = capture(Module(*members, forward=forward), *(random(*shape) for shape in shapes))
    graph.apply(canonicalize, exact=False)
    changed = graph.apply(fold_shifts, exact=False)
    return graph, changed


def scale_of_res2net(self, x, y):
    whole = torch.addcmul(self.p0, x, self.p1)
    return whole[..., :4].exp(), (whole[..., 4:] + torch.addcmul(self.p2, y, self.p3)).exp()


def read_whole(self, x, y):
    whole = torch.addcmul(self.p0, x, self.p1)
    return whole.exp(), (whole[..., 4:] + torch.addcmul(self.p2, y, self.p3)).exp()


def of_parts_that_overlap(self, x, y):
    whole = torch.addcmul(self.p0, x, self.p1)
    return whole[..., :5].exp(), (whole[..., 4:] + torch.addcmul(self.p2, y, self.p3)).exp()


@pytest.mark.parametrize(("forward", "changed"), [(scale_of_res2net, 1), (read_whole, 0), (of_parts_that_overlap, 0)])
def test_the_norm_of_a_part_takes_what_is_added_to_it(forward, changed):
    graph, found = folded(forward, *vectors(8, 8, 4, 4))
    assert found == changed and len(graph.calls(aten.add.Tensor)) == 1
    assert changed == (graph.only(aten.add.Tensor).args[0].op == "placeholder")


def joined(self, x, y):
    parts = [torch.addcmul(self.p0, x, self.p1), y, torch.addcmul(self.p2, y.exp(), self.p3)[None].view(1, 6, 4)]
    return torch.cat(parts, -1).exp()


def test_norms_that_are_joined_are_one():
    graph, changed = folded(joined, *vectors(8, 8, 4, 4))
    assert changed == 1 and graph.only(aten.addcmul.default)


def test_norms_that_are_read_elsewhere_are_joined_as_they_are():
    def forward(self, x, y):
        parts = [torch.addcmul(self.p0, x, self.p1), torch.addcmul(self.p2, y, self.p3)]
        return torch.cat(parts, -1).exp(), parts[0].exp(), parts[1].exp()

    graph, changed = folded(forward, *vectors(8, 8, 4, 4))
    assert changed == 0 and len(graph.calls(aten.addcmul.default)) == 2


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_takes_the_norm_before_it(bias):
    def forward(self, x):
        return self.p2(torch.addcmul(self.p0, x, self.p1))

    graph, changed = folded(forward, *vectors(8, 8), nn.Linear(8, 5, bias=bias), shapes=[(1, 6, 8)])
    assert changed == 1 and graph.only(operators.linear) and not graph.calls(aten.addcmul.default)
