"""Attention in layers, its chunk sizes, sliding windows and capped scores."""

import math
import re

import torch
import torch.nn.functional as F
from compiled import check, compiled, random, rounded
from lowering_tables.products import operands
from torch import nn

from tt_dynamo.lowering.language.attention import _chunks


def test_an_encoder_layer():
    layer = rounded(nn.TransformerEncoderLayer(64, 2, 128, dropout=0.0, batch_first=True, activation="gelu"))
    layer.train()  # in evaluation mode torch computes it by one operation of its own
    report = check(layer, random(2, 5, 64), roundings=8, cancels=True)
    assert report.device_programs <= 9


def test_chunks_of_queries_are_those_whose_busiest_core_has_the_fewest():
    for batch in (1, 8, 32):
        code = check(F.scaled_dot_product_attention, *operands(batch, 4, 128, 128, 32), cancels=True).code
        columns, rows = map(int, re.search(r"CoreCoord\((\d+), (\d+)\)", code).groups())
        chunk = int(re.search(r"q_chunk_size=(\d+)", code).group(1))
        busiest = {size: math.ceil(batch * 4 * math.ceil(128 / size) / columns / rows) * size for size in (32, 64, 128)}
        assert busiest[chunk] == min(busiest.values())


def test_a_few_chunk_sizes_are_tried_and_the_smallest_comes_last():
    sizes = (512, 384, 256, 224, 192, 128, 96, 64, 32)
    for shape, causal, best in (
        ((8, 12, 384, 64), False, (192, 384)),  # 96 heads of 2 chunks are 3 a core of 64, where 3 of 128 would be 5
        ((8, 12, 197, 64), False, (128, 224)),
        ((1, 32, 1024, 128), True, (256, 256)),  # 4 chunks of a head are 2 pairs, one of 64 a core
    ):
        chunks = _chunks(sizes, shape, shape[2], 64, causal)
        assert chunks[0] == best and chunks[-1] == (32, 32)
        assert len(chunks) <= 8 and len(set(chunks)) == len(chunks)
    assert _chunks(sizes, (1, 1, 20, 64), 20, 64, False) == [(32, 32)]


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
