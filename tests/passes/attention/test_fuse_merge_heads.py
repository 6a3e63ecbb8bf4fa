"""Attention merges its heads itself wherever moves of data spell that out."""

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.attention.heads import fuse_merge_heads
from tt_dynamo.passes.normalize.canonicalize import canonicalize

BATCH, HEADS, SEQ, DIM = 2, 3, 5, 4


@pytest.fixture
def qkv():
    return [random(BATCH, HEADS, SEQ, DIM) + i for i in range(3)]


def fused(model, *inputs):
    graph = capture(model, *inputs)
    graph.apply(canonicalize, exact=False)
    return graph, graph.apply(fuse_merge_heads, exact=False)


MERGES = {
    "transpose, reshape": lambda y: y.transpose(1, 2).reshape(BATCH, SEQ, HEADS * DIM),
    "permute, contiguous, view": lambda y: y.permute(0, 2, 1, 3).contiguous().view(BATCH, SEQ, -1),
    "transpose, flatten": lambda y: y.transpose(1, 2).flatten(2),
    "to rows": lambda y: y.transpose(1, 2).reshape(BATCH * SEQ, HEADS * DIM),
    "with an extra dimension": lambda y: y.transpose(1, 2).reshape(BATCH, 1, SEQ, HEADS * DIM),
    "through sequence first": lambda y: y.permute(2, 0, 1, 3).reshape(SEQ, BATCH, -1).transpose(0, 1),
}


@pytest.mark.parametrize("name", MERGES)
def test_every_spelling_of_the_merge_joins_the_attention(name, qkv):
    graph, changed = fused(lambda q, k, v: torch.relu(MERGES[name](F.scaled_dot_product_attention(q, k, v))), *qkv)
    assert changed == 1
    assert not graph.calls(aten.permute.default, aten.scaled_dot_product_attention.default)
    merged = graph.only(operators.attention).meta["val"]
    assert merged.shape[-2:] == (SEQ, HEADS * DIM) and merged.numel() == BATCH * SEQ * HEADS * DIM


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_causality_and_scale_are_kept(causal, scale, qkv):
    def model(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale).transpose(1, 2).flatten(2)

    graph, _ = fused(model, *qkv)
    assert graph.only(operators.attention).args[3:] == (None, causal, scale)


def test_a_mask_is_kept(qkv):
    def model(q, k, v, mask):
        return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)

    graph, _ = fused(model, *qkv, random(BATCH, 1, SEQ, SEQ))
    assert graph.only(operators.attention).args[3].op == "placeholder"


STAYING = {
    "heads apart": lambda y: y.transpose(1, 2),
    "heads flattened without a transpose": lambda y: y.reshape(BATCH, SEQ, HEADS * DIM),
    "sequence first": lambda y: y.permute(2, 0, 1, 3).reshape(SEQ, BATCH, -1),
    "head dim before heads": lambda y: y.permute(0, 2, 3, 1).reshape(BATCH, SEQ, -1),
    "one head picked": lambda y: y[:, 0],
    "computed in between": lambda y: torch.relu(y).transpose(1, 2).flatten(2),
    "left as it is": lambda y: y,
}


@pytest.mark.parametrize("name", STAYING)
def test_what_does_not_merge_heads_stays(name, qkv):
    graph, changed = fused(lambda q, k, v: torch.exp(STAYING[name](F.scaled_dot_product_attention(q, k, v))), *qkv)
    if name == "heads apart":  # [batch, seq, heads, head_dim] lies in memory as merged heads do
        assert changed == 1
    else:
        assert changed == 0 and graph.calls(aten.scaled_dot_product_attention.default)


def test_attention_that_is_read_unmerged_too_stays(qkv):
    def model(q, k, v):
        y = F.scaled_dot_product_attention(q, k, v)
        return y.transpose(1, 2).flatten(2), torch.relu(y)

    _, changed = fused(model, *qkv)
    assert changed == 0


def test_a_merge_that_is_read_twice_is_fused(qkv):
    def model(q, k, v):
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return torch.relu(y) + y

    graph, changed = fused(model, *qkv)
    assert changed == 1


def test_attention_of_grouped_heads_merges_its_heads():
    def model(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2)

    kv = random(BATCH, 2, SEQ, DIM)
    graph, changed = fused(model, random(BATCH, 4, SEQ, DIM), kv, kv + 1)
    assert changed == 1
    assert [x.op for x in graph.only(operators.attention).args[:3]] == ["placeholder"] * 3


@pytest.mark.parametrize("window", [1, 3, SEQ - 1])
def test_a_literal_window_is_the_kernels(window):
    def model(q, k, v):
        places = torch.arange(SEQ)
        near = (places <= places[:, None]) & (places > places[:, None] - window)
        return F.scaled_dot_product_attention(q, k, v, near).transpose(1, 2).flatten(2)

    q = random(BATCH, HEADS, SEQ, DIM)
    graph = capture(model, q, q + 1, q - 1)
    graph.apply(canonicalize, fuse_attention, exact=False)
    changed = graph.apply(fuse_merge_heads, exact=False)
    assert changed == 1
    assert graph.only(operators.attention).args[3:] == (None, True, None, window)
    assert not graph.calls(operators.attention_mask)


@pytest.mark.parametrize("name", ["both sides", "every other key", "a longer first row"])
def test_another_literal_mask_stays_a_mask(name):
    def model(q, k, v):
        places = torch.arange(SEQ)
        back = places[:, None] - places
        masks = {
            "both sides": back.abs() < 2,
            "every other key": (back >= 0) & (back % 2 == 0),
            "a longer first row": (back >= 0) & (back < 2) | (places[:, None] == 0),
        }
        return F.scaled_dot_product_attention(q, k, v, masks[name]).transpose(1, 2).flatten(2)

    q = random(BATCH, HEADS, SEQ, DIM)
    graph = capture(model, q, q + 1, q - 1)
    graph.apply(canonicalize, fuse_attention, exact=False)
    changed = graph.apply(fuse_merge_heads, exact=False)
    assert changed == 1
    assert graph.only(operators.attention).args[3] is graph.only(operators.attention_mask)


@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention_merges_its_heads(batch_first):
    attention = nn.MultiheadAttention(HEADS * DIM, HEADS, batch_first=batch_first).eval()
    x = random(BATCH, SEQ, HEADS * DIM) if batch_first else random(SEQ, 1, HEADS * DIM)
    graph, changed = fused(lambda x: attention(x, x, x, need_weights=False)[0], x)
    assert changed == 1


@pytest.mark.parametrize(("head_dim", "merges"), [(32, True), (4, False)])
def test_sums_of_heads_of_whole_tiles_are_merged_by_a_kernel(head_dim, merges):
    """MViT adds its queries to what attention gives."""

    def model(q, k, v):
        return torch.exp((F.scaled_dot_product_attention(q, k, v) + q).transpose(1, 2).flatten(2))

    graph, changed = fused(model, *(random(BATCH, HEADS, SEQ, head_dim) + i for i in range(3)))
    assert changed == merges
    assert len(graph.calls(operators.merge_heads)) == merges
    assert len(graph.calls(aten.permute.default)) == (not merges)
