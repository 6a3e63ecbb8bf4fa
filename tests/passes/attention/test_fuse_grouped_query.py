"""Keys and values that are repeated for the heads of queries are read where they stand once."""

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.attention import heads
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.attention.heads import fuse_grouped_query
from tt_dynamo.passes.attention.rotary import fuse_rotary
from tt_dynamo.passes.normalize.canonicalize import canonicalize

sdpa = aten.scaled_dot_product_attention.default
BATCH, HEADS, SEQ, DIM = 2, 6, 5, 4


def fused(model, *inputs):
    graph = capture(model, *inputs)
    graph.apply(canonicalize)
    graph.apply(fuse_attention, exact=False)
    return graph, graph.apply(fuse_grouped_query, exact=False)


def inputs(kv_heads, dim=DIM):
    k = random(BATCH, kv_heads, SEQ, dim)
    return random(BATCH, HEADS, SEQ, dim), k, k + 1


def repeat_kv(x):
    batch, heads, seq, dim = x.shape
    times = HEADS // heads
    return x[:, :, None].expand(batch, heads, times, seq, dim).reshape(batch, heads * times, seq, dim)


REPEATS = {
    "expand": repeat_kv,
    "repeat interleave": lambda x: x.repeat_interleave(HEADS // x.shape[1], 1),
    "repeat": lambda x: x[:, :, None].repeat(1, 1, HEADS // x.shape[1], 1, 1).flatten(1, 2),
    "broadcast": lambda x: x.unsqueeze(2).broadcast_to(BATCH, -1, HEADS // x.shape[1], SEQ, DIM).flatten(1, 2),
}


@pytest.mark.parametrize("kv_heads", [1, 2, 3])
@pytest.mark.parametrize("name", REPEATS)
def test_repeated_heads_are_read_once(name, kv_heads):
    def model(q, k, v, mask):
        return F.scaled_dot_product_attention(q, REPEATS[name](k), REPEATS[name](v), mask)

    graph, changed = fused(model, *inputs(kv_heads), random(1, 1, SEQ, SEQ))
    assert changed == 1
    node = graph.only(sdpa)
    assert [x.op for x in node.args[:3]] == ["placeholder"] * 3
    assert node.kwargs["enable_gqa"] and node.kwargs["scale"] is None


def test_many_users_and_long_caches_cost_a_number_for_each_row(monkeypatch):
    monkeypatch.setattr(heads, "LIMIT", BATCH * HEADS * SEQ)

    def model(q, k, v):
        return F.scaled_dot_product_attention(q, repeat_kv(k), repeat_kv(v))

    assert fused(model, *inputs(2))[1] == 1
    monkeypatch.setattr(heads, "LIMIT", BATCH * HEADS * SEQ - 1)
    assert fused(model, *inputs(2))[1] == 0


def test_attention_that_is_spelled_out_reads_its_repeats_once():
    def model(q, k, v):
        return torch.softmax(q @ repeat_kv(k).transpose(2, 3) * 0.5, -1) @ repeat_kv(v)

    graph, changed = fused(model, *inputs(2))
    assert changed == 1
    assert graph.targets() == [sdpa]


def test_heads_that_are_repeated_before_they_are_heads_are_read_once():
    def model(q, k, v):  # Falcon: [batch, seq, kv heads, times, dim], then merged, then heads first
        k, v = (
            x.view(BATCH, SEQ, 2, 1, DIM).broadcast_to(BATCH, SEQ, 2, 3, DIM).reshape(BATCH, SEQ, HEADS, DIM)
            for x in (k, v)
        )
        return F.scaled_dot_product_attention(q, k.transpose(1, 2), v.transpose(1, 2))

    rows = random(BATCH, SEQ, 2 * DIM)
    graph, changed = fused(model, random(BATCH, HEADS, SEQ, DIM), rows, rows + 1)
    assert changed == 1
    assert not graph.calls(aten.expand.default)


def test_heads_that_are_turned_after_they_are_repeated_are_turned_once():
    def model(q, k, v, cos, sin):
        first, second = repeat_kv(k).chunk(2, -1)
        turned = repeat_kv(k) * cos + torch.cat((-second, first), -1) * sin
        return F.scaled_dot_product_attention(q, turned, repeat_kv(v))

    table = random(1, 1, SEQ, 32)
    graph = capture(model, *inputs(2, 32), table, table + 1)
    graph.apply(canonicalize)
    graph.apply(fuse_rotary, exact=False)
    graph.apply(fuse_attention, exact=False)
    assert shape_of(graph.only(operators.rotary)) == (BATCH, HEADS, SEQ, 32)
    assert graph.apply(fuse_grouped_query, exact=False) == 1
    assert graph.only(operators.rotary).args[0].op == "placeholder"


STAYS = {
    "in turns": lambda x: x.repeat(1, 3, 1, 1),
    "values alone": None,
    "other rows": lambda x: repeat_kv(x).flip(2),
}


@pytest.mark.parametrize("name", STAYS)
def test_other_repeats_stay(name):
    def model(q, k, v):
        if name == "values alone":
            return F.scaled_dot_product_attention(q, q, repeat_kv(v))
        return F.scaled_dot_product_attention(q, STAYS[name](k), STAYS[name](v))

    graph, changed = fused(model, *inputs(2))
    assert changed == 0
    assert "enable_gqa" not in graph.only(sdpa).kwargs


def test_capped_attention_reads_repeats_once():
    def model(q, k, v, mask):
        scores = torch.tanh(q @ repeat_kv(k).transpose(2, 3) * 0.5 / 30.0) * 30.0
        return torch.softmax(scores + mask, -1) @ repeat_kv(v)

    graph, changed = fused(model, *inputs(2), random(BATCH, 1, SEQ, SEQ))
    assert changed == 1
    node = graph.only(operators.capped_attention)
    assert [x.op for x in node.args[:3]] == ["placeholder"] * 3
    assert node.args[4:] == (0.5, pytest.approx(30.0))


def test_a_single_head_that_others_read_too_is_made_once():
    """Without heads to exchange their order, heads are a reshape of what the linear gives, of which one is enough."""

    def model(q, x):
        v = (x + 1).view(BATCH, SEQ, 1, DIM).transpose(1, 2)
        return F.scaled_dot_product_attention(q, repeat_kv(v), repeat_kv(v)), v

    graph, changed = fused(model, random(BATCH, HEADS, SEQ, DIM), random(BATCH, SEQ, DIM))
    assert changed == 1
    returned = graph.graph.output_node().args[0][1]
    assert graph.only(sdpa).args[1:3] == (returned, returned)


def test_a_cache_that_keeps_heads_repeated_has_them_repeated_last():
    def run(x):
        apart = x.view(1, 8, 2, 4, 32)
        key = apart[:, :, :, [-2]].broadcast_to(1, 8, 2, 3, 32).flatten(2, 3).transpose(1, 2)
        return F.pad(key, (0, 0, 0, 8))

    graph = capture(run, random(1, 8, 256))
    assert graph.apply(canonicalize, fuse_grouped_query) == 1
    assert not graph.calls(aten.expand.default)
    heads = graph.only(aten.repeat.default).args[0]
    assert heads.meta["val"].shape == (2, 1, 8, 32)
