"""Masks of windows: added to scores [batch, windows, heads, m, n], they are masks of attention [batch * windows, …]."""

import pytest
import torch
from captured import capture, parameter, random

from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.normalize.canonicalize import canonicalize

sdpa = aten.scaled_dot_product_attention.default
BATCH, WINDOWS, HEADS, TOKENS = 2, 4, 3, 6


def in_windows(q, k, v, bias, mask):
    scores = (q * 0.5) @ k.transpose(-2, -1) + bias
    scores = scores.view(BATCH, WINDOWS, HEADS, TOKENS, TOKENS) + mask
    return torch.softmax(scores.view(-1, HEADS, TOKENS, TOKENS), -1) @ v


def fused(mask):
    operands = (random(BATCH * WINDOWS, HEADS, TOKENS, 8) for _ in range(3))
    bias, mask = parameter(1, HEADS, TOKENS, TOKENS), torch.nn.Parameter(mask)
    graph = capture(lambda q, k, v: in_windows(q, k, v, bias, mask), *operands)
    graph.apply(canonicalize, fuse_attention, exact=False)
    return graph


@pytest.mark.parametrize("heads", [1, HEADS])
def test_a_mask_of_each_window_is_one_of_each_window_of_the_batch(heads):
    graph = fused(random(1, WINDOWS, heads, TOKENS, TOKENS))
    assert shape_of(graph.only(sdpa).args[3])[0] == BATCH * WINDOWS
    assert not graph.calls(aten.softmax.int)


def test_a_mask_of_all_windows_stays_one():
    graph = fused(random(1, 1, HEADS, TOKENS, TOKENS))
    assert shape_of(graph.only(sdpa).args[3]) == (1, HEADS, TOKENS, TOKENS)
