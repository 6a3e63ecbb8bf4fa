"""Attention with mixed heads: as one attention of wide heads, with and without what is added to weights and scores."""

import pytest
import torch
from captured import Module, capture, parameter, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.attention import talking_heads
from tt_dynamo.passes.attention.talking_heads import fuse_talking_heads
from tt_dynamo.passes.normalize.canonicalize import canonicalize

sdpa = aten.scaled_dot_product_attention.default


class Talking(nn.Module):
    """Three heads of 4 that become others. parts: what is there of what such models have."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = parts
        self.project = nn.Linear(12, 12)
        self.before = nn.Linear(3, 3, bias="biases" in parts) if "before" in parts else None
        self.after = nn.Linear(3, 3, bias="biases" in parts) if "after" in parts else None
        self.bias = parameter(1, 3, 6, 6) if "mask" in parts else None
        if "hidden keys" in parts:
            self.bias = nn.Parameter(torch.full((1, 1, 6, 6), -torch.inf).triu(1))

    def mixed(self, mix, x):
        return x if mix is None else mix(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def forward(self, x):
        q, k, v = x.reshape(2, 6, 3, 3, 4).permute(2, 0, 3, 1, 4)
        scores = (q * 0.5) @ k.transpose(-2, -1)
        scores = scores if self.bias is None else scores + self.bias
        weights = self.mixed(self.after, self.mixed(self.before, scores).softmax(-1))
        y = (weights @ v).transpose(1, 2).reshape(2, 6, 12)
        return self.project(y) if "project" in self.parts else y.sin()


def fused(model):
    graph = capture(model, random(2, 6, 36))
    graph.apply(canonicalize, fuse_talking_heads, exact=False)
    return graph


@pytest.mark.parametrize(
    ("parts", "heads"),
    [
        (("before", "after", "biases", "project"), 4),
        (("before", "after", "mask", "project"), 3),
        (("after", "biases", "mask"), 4),
        (("after", "hidden keys", "project"), 3),
        (("before", "biases"), 3),
    ],
)
def test_mixed_heads_are_wide_heads_with_one_key(parts, heads):
    graph = fused(Talking(*parts))
    attention = graph.only(sdpa)
    assert [shape_of(x)[1] for x in attention.args[:3]] == [heads, 1, 1]
    assert [shape_of(x)[-1] for x in attention.args[:3]] == [12, 12, 12]
    assert not graph.calls(aten.softmax.int, aten.matmul.default, aten.bmm.default)
    products = [x for x in graph.calls(operators.linear) if x.args[0].op != "get_attr"]
    assert shape_of(products[-1].args[0]) == (2, 6, heads * 12)


def test_other_attention_and_many_channels_stay(monkeypatch):
    plain = Module(forward=lambda module, x: x.softmax(-1) @ x)
    assert not capture(plain, random(2, 3, 6, 6)).apply(canonicalize, fuse_talking_heads)
    monkeypatch.setattr(talking_heads, "MOST_CHANNELS", 32)
    assert not fused(Talking("before", "after")).calls(sdpa)
