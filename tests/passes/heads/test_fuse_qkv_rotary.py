"""Projections whose heads are normed or turned before attention become one linear and one split as well."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from projections import BATCH, DIM, HEADS, SEQ, WIDTH, heads_of, merged, projections
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.attention.rotary import fuse_rotary
from tt_dynamo.passes.fuse.spelled_out import fuse_rms_norm
from tt_dynamo.passes.heads.qkv import fuse_qkv
from tt_dynamo.passes.normalize.canonicalize import canonicalize

sdpa = aten.scaled_dot_product_attention.default


@pytest.fixture
def x():
    return random(BATCH, SEQ, WIDTH)


def turned(x, cos, sin):
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def rotary_attention(self, x, cos, sin, mask=None):
    q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
    return merged(F.scaled_dot_product_attention(turned(q, cos, sin), turned(k, cos, sin), v, mask))


def tables():
    return [random(1, 1, SEQ, DIM), random(1, 1, SEQ, DIM) + 1]


def fused_rotary(forward, *members, inputs):
    graph = capture(Module(*members, forward=forward), *inputs)
    for transform in (canonicalize, fuse_rotary, fuse_rms_norm, fuse_attention):
        graph.apply(transform, exact=False)
    assert graph.apply(fuse_qkv, exact=False) == 1
    assert len(graph.calls(operators.linear)) == len(graph.calls(operators.split_heads)) == 1
    return graph


def test_heads_that_turn_before_attention_are_fused(x):
    graph = fused_rotary(rotary_attention, *projections(True, True, True), inputs=[x, *tables()])
    split = graph.only(operators.split_heads)
    *turning, value = graph.only(sdpa).args[:3]
    assert [n.args[0].args for n in turning] == [(split, 0), (split, 1)]
    assert value.args == (split, 2)


def test_the_scale_goes_through_the_rotary_embedding_into_the_querys_columns(x):
    inputs = [x, *tables(), random(BATCH, 1, SEQ, SEQ)]
    graph = fused_rotary(rotary_attention, *projections(True, True, True), inputs=inputs)
    assert graph.only(sdpa).kwargs["scale"] == 1.0


class HeadNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(random(DIM))

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def normed_attention(self, x, mask=None):
    """Qwen3: the norm comes before the heads are brought to the front."""
    q, k = (
        norm(p(x).view(BATCH, SEQ, HEADS, DIM)).transpose(1, 2) for p, norm in ((self.p0, self.p3), (self.p1, self.p4))
    )
    return merged(F.scaled_dot_product_attention(q, k, heads_of(self.p2(x)), mask))


def test_heads_with_norms_of_their_own_are_fused(x):
    members = (*projections(True, True, True), HeadNorm(), HeadNorm())
    graph = fused_rotary(normed_attention, *members, inputs=[x])
    split = graph.only(operators.split_heads)
    assert [n.args[0].args for n in graph.calls(operators.rms_norm)] == [(split, 0), (split, 1)]


def test_the_scale_of_a_normed_query_goes_into_the_weight_of_its_norm(x):
    members = (*projections(True, True, True), HeadNorm(), HeadNorm())
    graph = fused_rotary(normed_attention, *members, inputs=[x, random(BATCH, 1, SEQ, SEQ)])
    assert graph.only(sdpa).kwargs["scale"] == 1.0
    query, key = graph.calls(operators.rms_norm)
    assert query.args[1].target is aten.mul.Tensor and query.args[1].args[1] == DIM**-0.5
    assert key.args[1].op == "placeholder"
