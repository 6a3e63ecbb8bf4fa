"""Heads that fill no whole tiles get zeros inside the weights around attention; others keep what they have."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.attention.heads import fuse_grouped_query, fuse_merge_heads
from tt_dynamo.passes.fuse.scales import fold_scales
from tt_dynamo.passes.fuse.spelled_out import fuse_rms_norm
from tt_dynamo.passes.heads.pad_heads import pad_heads
from tt_dynamo.passes.heads.qkv import fuse_qkv
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.constants import fold_constants

sdpa = aten.scaled_dot_product_attention.default
BATCH, SEQ, HEADS = 2, 5, 3


def heads_of(x, count=HEADS):
    return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def merged(y):
    return y.transpose(1, 2).flatten(2)


def linears(*sizes, width=24, bias=True):
    torch.manual_seed(0)
    return [nn.Linear(width, size, bias=bias) for size in sizes]


def own(dim, bias=True):
    """Query, key, value and output of HEADS heads."""
    return [*linears(*[HEADS * dim] * 3, bias=bias), *linears(7, width=HEADS * dim, bias=bias)]


def three(self, x, mask=None, **options):
    q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
    return self.p3(merged(F.scaled_dot_product_attention(q, k, v, mask, **options)))


def padded(forward, *members, inputs):
    graph = capture(Module(*members, forward=forward), *inputs)
    for transform in (canonicalize, fuse_attention, fuse_grouped_query):
        graph.apply(transform, exact=False)
    return graph, graph.apply(pad_heads, exact=False)


@pytest.fixture
def x():
    return random(BATCH, SEQ, 24)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dim", "wide"), [(72, 96), (80, 96), (48, 64), (16, 32), (1, 32)])
def test_heads_are_as_wide_as_whole_tiles(dim, wide, bias, x):
    graph, changed = padded(three, *own(dim, bias), inputs=[x])
    assert changed == 1
    attention = graph.only(sdpa)
    assert [shape_of(operand)[-1] for operand in attention.args[:3]] == [wide] * 3
    assert attention.kwargs["scale"] == pytest.approx(dim**-0.5), "the true head_dim's"
    assert shape_of(graph.calls(operators.linear)[-1].args[1]) == (HEADS * wide, 7)


def test_the_layer_has_the_calls_of_one_whose_heads_fill_their_tiles(x):
    found = []
    for dim in (72, 96):
        graph, _ = padded(three, *own(dim), inputs=[x])
        for transform in (fuse_qkv, fuse_merge_heads, canonicalize, fold_constants):
            graph.apply(transform, exact=False)
        found.append(graph.targets())
    assert found[0] == found[1]


@pytest.mark.parametrize("options", [{"scale": 0.3}, {"is_causal": True}], ids=str)
def test_scale_and_causality_are_kept(options, x):
    graph, changed = padded(lambda s, x: three(s, x, **options), *own(8), inputs=[x])
    assert changed == 1
    attention = graph.only(sdpa)
    assert attention.kwargs["scale"] == pytest.approx(options.get("scale", 8**-0.5))
    assert (True in attention.args[3:]) == ("is_causal" in options)


def test_a_mask_is_kept_and_the_scale_still_goes_into_the_querys_columns(x):
    graph, changed = padded(three, *own(8), inputs=[x, random(BATCH, 1, SEQ, SEQ)])
    assert changed == 1
    graph.apply(fuse_qkv, exact=False)
    assert graph.only(sdpa).kwargs["scale"] == 1.0


def test_one_projection_of_all_three_is_padded_in_its_own_order(x):
    def forward(self, x):
        v, q, k = self.p0(x).chunk(3, -1)
        return self.p1(merged(F.scaled_dot_product_attention(heads_of(q), heads_of(k), heads_of(v))))

    graph, changed = padded(forward, *linears(3 * HEADS * 8), *linears(7, width=HEADS * 8), inputs=[x])
    assert changed == 1
    graph.apply(fuse_qkv, exact=False)
    assert len(graph.calls(operators.split_heads)) == 1


def test_queries_and_keys_become_as_wide_as_values(x):
    def forward(self, x):
        q, k, v = self.p0(x).view(BATCH, SEQ, HEADS, 48).split([8, 8, 32], 3)
        weights = torch.softmax(heads_first(q) @ heads_first(k).transpose(-2, -1) * 0.3, -1)
        return torch.relu(merged(weights @ heads_first(v)))

    def heads_first(x):
        return x.permute(0, 2, 1, 3)

    graph, changed = padded(forward, *linears(HEADS * 48), inputs=[x])
    assert changed == 1
    assert [shape_of(operand)[-1] for operand in graph.only(sdpa).args[:3]] == [32] * 3
    assert graph.only(sdpa).kwargs["scale"] == pytest.approx(0.3)


def test_fewer_key_heads_than_query_heads_are_padded(x):
    def forward(self, x):
        q, k, v = heads_of(self.p0(x), 4), heads_of(self.p1(x), 2), heads_of(self.p2(x), 2)
        k, v = (y[:, :, None].expand(-1, -1, 2, -1, -1).reshape(BATCH, 4, SEQ, 8) for y in (k, v))
        return self.p3(merged(F.scaled_dot_product_attention(q, k, v)))

    graph, changed = padded(forward, *linears(32, 16, 16), *linears(7, width=32), inputs=[x])
    assert changed == 1
    assert [shape_of(operand)[1] for operand in graph.only(sdpa).args[:3]] == [4, 2, 2]


def test_cross_attention_is_padded(x):
    def forward(self, x, y):
        q, k, v = heads_of(self.p0(x)), heads_of(self.p1(y)), heads_of(self.p2(y))
        return self.p3(merged(F.scaled_dot_product_attention(q, k, v)))

    _, changed = padded(forward, *own(8), inputs=[x, random(BATCH, 9, 24)])
    assert changed == 1


def test_multihead_attention_is_padded(x):
    attention = nn.MultiheadAttention(24, HEADS, batch_first=True).eval()
    _, changed = padded(lambda s, x: s.p0(x, x, x, need_weights=False)[0], attention, inputs=[x])
    assert changed == 1


def test_heads_of_whole_tiles_stay(x):
    assert padded(three, *own(64), inputs=[x])[1] == 0


@pytest.mark.parametrize("weight", [None, torch.rand(8) + 0.5], ids=["plain", "weighted"])
def test_normed_and_scaled_heads_are_padded(weight, x):
    """Of n columns in m, the mean of squares is n / m of what it was."""
    scale = torch.rand(HEADS, 1, 1)

    def forward(self, x):
        q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
        q, k = (F.rms_norm(y, (8,), weight, 0.1) for y in (q * scale, k))
        return attended(self, q * scale, k, v)

    graph = capture(Module(*own(8), forward=forward), x)
    for transform in (canonicalize, fuse_rms_norm, fuse_attention, fold_scales):
        graph.apply(transform, exact=False)
    assert graph.apply(pad_heads, exact=False) == 1
    assert {shape_of(norm)[-1] for norm in graph.calls(operators.rms_norm)} == {32}


def test_heads_normed_and_centered_stay(x):
    def forward(self, x):
        q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
        return attended(self, F.layer_norm(q, (8,)), k, v)

    assert padded(forward, *own(8), inputs=[x])[1] == 0


def attended(self, q, k, v):
    return self.p3(merged(F.scaled_dot_product_attention(q, k, v)))


def returned(self, x):
    q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
    return attended(self, q, k, v), k


def cached(self, x):
    q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
    k = torch.zeros(BATCH, HEADS, 9, 8).index_copy(2, torch.arange(SEQ), k)
    v = torch.zeros(BATCH, HEADS, 9, 8).index_copy(2, torch.arange(SEQ), v)
    return attended(self, q, k, v), k, v


def turned(self, x):
    q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
    q, k = (y * 0.5 + torch.cat((-y[..., 4:], y[..., :4]), -1) for y in (q, k))
    return attended(self, q, k, v)


def shared(self, x):
    q, k = heads_of(self.p0(x)), heads_of(self.p1(x))
    return attended(self, q, k, k)


def read_whole(self, x):
    y = self.p0(x)
    return attended(self, heads_of(y), heads_of(self.p1(x)), heads_of(self.p2(x))) + y.sum()


def activated_output(self, x):
    q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
    return self.p3(torch.relu(merged(F.scaled_dot_product_attention(q, k, v))))


def output_read_twice(self, x):
    q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
    y = merged(F.scaled_dot_product_attention(q, k, v))
    return self.p3(y) + y.sum()


def no_merge(self, x):
    """What the last linear reads are heads one below the other."""
    q, k, v = heads_of(self.p0(x)), heads_of(self.p1(x)), heads_of(self.p2(x))
    return self.p3(F.scaled_dot_product_attention(q, k, v).reshape(BATCH, SEQ, -1))


STAYING = [returned, cached, turned, shared, read_whole, activated_output, output_read_twice, no_merge]


@pytest.mark.parametrize("forward", STAYING, ids=lambda f: f.__name__)
def test_heads_that_anything_else_reads_stay(forward, x):
    assert padded(forward, *own(8), inputs=[x])[1] == 0


def test_weights_that_are_inputs_stay(x):
    def forward(self, x, weight):
        q, k, v = heads_of(F.linear(x, weight)), heads_of(self.p1(x)), heads_of(self.p2(x))
        return attended(self, q, k, v)

    assert padded(forward, *own(8), inputs=[x, random(24, 24)])[1] == 0
