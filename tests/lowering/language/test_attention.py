"""Attention: masks, causality, heads that fill no tile, chunk sizes."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from compiled import calls, check, compiled, random, rounded
from torch import nn

sdpa = "transformer.scaled_dot_product_attention"
SIZES = [(1, 1, 1, 1, 32), (2, 3, 5, 7, 32), (1, 2, 33, 33, 64), (1, 2, 5, 5, 8), (2, 2, 40, 70, 72)]


def operands(batch, heads, queries, keys, dim):
    return (
        random(batch, heads, queries, dim),
        random(batch, heads, keys, dim),
        random(batch, heads, keys, dim, mean=0.25),
    )


def attend(query, key, value, mask=None, **options):
    return F.scaled_dot_product_attention(query, key, value, mask, **options)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_attention_of_any_size(size):
    report = check(attend, *operands(*size), cancels=True)
    assert calls(report).count(sdpa) == 1
    assert ("pad" in calls(report)) == (size[-1] % 32 != 0)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_attention_that_merges_its_heads(size):
    report = check(lambda q, k, v: attend(q, k, v).transpose(1, 2).flatten(2), *operands(*size), cancels=True)
    assert calls(report).count(sdpa) == 1
    if size[-1] % 32 == 0:
        assert "permute" not in calls(report), "the kernel merges heads itself"


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shared", ["batch", "heads", "queries", "nothing"])
def test_an_additive_mask_broadcasts(size, shared):
    batch, heads, queries, keys, _ = size
    shape = {
        "batch": (1, heads, queries, keys),
        "heads": (batch, 1, queries, keys),
        "queries": (batch, 1, 1, keys),
        "nothing": (batch, heads, queries, keys),
    }[shared]
    check(attend, *operands(*size), random(*shape), cancels=True)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_boolean_mask_hides_keys(size):
    batch, _, _, keys, _ = size
    mask = torch.arange(keys)[None, None, None] <= torch.arange(batch)[:, None, None, None]
    check(attend, *operands(*size), mask, cancels=True)


@pytest.mark.parametrize("keys", [7, 32, 33])
def test_the_padding_of_a_masks_tiles_is_filled_where_there_is_any(keys):
    report = check(attend, *operands(1, 2, 5, keys, 32), random(1, 1, 5, keys), cancels=True)
    assert ("fill_implicit_tile_padding" in calls(report)) == (keys % 32 != 0)


def test_causal_attention():
    check(lambda q, k, v: attend(q, k, v, is_causal=True), *operands(1, 2, 33, 33, 32), cancels=True)


@pytest.mark.parametrize("dim", [32, 8])
def test_a_scale_of_its_own(dim):
    check(lambda q, k, v: attend(q, k, v, scale=0.3), *operands(1, 2, 5, 7, dim), cancels=True)


def test_fewer_key_heads_than_query_heads():
    query, key, value = random(1, 4, 33, 32), random(1, 2, 33, 32), random(1, 2, 33, 32, mean=0.25)
    check(lambda q, k, v: attend(q, k, v, enable_gqa=True), query, key, value, cancels=True)


def test_spelled_out_attention_is_one_kernel():
    def model(q, k, v):
        return torch.softmax(q @ k.mT / math.sqrt(32), -1) @ v

    report = check(model, *operands(2, 3, 5, 7, 32), cancels=True)
    assert calls(report) == [sdpa]


@pytest.mark.parametrize(("width", "heads"), [(64, 2), (48, 6), (96, 3)])
@pytest.mark.parametrize("batch_first", [True, False])
def test_multihead_attention(width, heads, batch_first):
    attention = rounded(nn.MultiheadAttention(width, heads, batch_first=batch_first))
    # projection, attention and output are rounded once each, and what the first rounds, the others sum up
    check(lambda x: attention(x, x, x, need_weights=False)[0], random(2, 5, width), roundings=3, cancels=True)


def test_an_encoder_layer():
    layer = rounded(nn.TransformerEncoderLayer(64, 2, 128, dropout=0.0, batch_first=True, activation="gelu"))
    layer.train()  # in evaluation mode torch computes it by one operation of its own
    report = check(layer, random(2, 5, 64), roundings=8, cancels=True)
    assert report.device_programs <= 9


def test_chunks_are_the_largest_that_keep_every_core_busy():
    for batch in (1, 8, 32):
        code = check(attend, *operands(batch, 4, 128, 128, 32), cancels=True).code
        columns, rows = map(int, re.search(r"CoreCoord\((\d+), (\d+)\)", code).groups())
        chunk = int(re.search(r"q_chunk_size=(\d+)", code).group(1))
        work = {size: batch * 4 * math.ceil(128 / size) for size in (128, 64, 32)}
        busy = [size for size in work if work[size] >= columns * rows]
        assert chunk <= (busy[0] if busy else 64)


def test_a_sliding_window_is_the_kernels_and_counts_the_query_itself():
    def model(q, k, v):
        places = torch.arange(64)
        near = (places <= places[:, None]) & (places > places[:, None] - 16)
        return F.scaled_dot_product_attention(q, k, v, near).transpose(1, 2).flatten(2)

    torch.manual_seed(0)
    inputs = [torch.randn(1, 4, 64, 32).bfloat16().float() for _ in range(3)]
    got, report = compiled(model, *inputs)
    assert "sliding_window_size=16" in report.code.replace(" ", "") and not report.fallbacks
    torch.testing.assert_close(got, model(*inputs), rtol=0.02, atol=0.02)


def test_capped_scores_take_five_kernels_and_one_to_merge_heads():
    def model(q, k, v, mask):
        k, v = (x.repeat_interleave(2, 1) for x in (k, v))
        scores = torch.tanh(q @ k.mT * 0.2 / 5.0) * 5.0 + mask
        return (torch.softmax(scores, -1) @ v).transpose(1, 2).flatten(2)

    torch.manual_seed(0)
    q, k, v = (torch.randn(1, heads, 64, 32).bfloat16().float() for heads in (4, 2, 2))
    mask = torch.zeros(1, 1, 64, 64).masked_fill(torch.ones(64, 64).triu(1).bool(), -torch.inf)
    got, report = compiled(model, q, k, v, mask)
    assert report.device_programs == 6 and not report.fallbacks
    torch.testing.assert_close(got, model(q, k, v, mask), rtol=0.02, atol=0.02)
