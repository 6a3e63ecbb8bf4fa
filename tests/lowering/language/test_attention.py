"""Attention in layers, its chunk sizes, sliding windows and capped scores."""

import math
import re

import torch
import torch.nn.functional as F
from compiled import check, compiled, random, rounded
from lowering_tables.products import operands
from torch import nn


def test_an_encoder_layer():
    layer = rounded(nn.TransformerEncoderLayer(64, 2, 128, dropout=0.0, batch_first=True, activation="gelu"))
    layer.train()  # in evaluation mode torch computes it by one operation of its own
    report = check(layer, random(2, 5, 64), roundings=8, cancels=True)
    assert report.device_programs <= 9


def test_chunks_are_the_largest_that_keep_every_core_busy():
    for batch in (1, 8, 32):
        code = check(F.scaled_dot_product_attention, *operands(batch, 4, 128, 128, 32), cancels=True).code
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
