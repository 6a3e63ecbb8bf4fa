"""Attention as einsum spells it, with scores for relative positions and less what a mask forbids, is one operation."""

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.attention import PRODUCTS, fuse_attention
from tt_dynamo.passes.normalize.canonicalize import canonicalize

BATCH, QUERIES, KEYS, HEADS, DIM = 2, 5, 7, 3, 4
sdpa = aten.scaled_dot_product_attention.default


def funnel(q, k, v, bias, forbidden):
    scores = torch.einsum("binh,bjnh->bnij", q * 0.5, k) + bias - 1e6 * forbidden[:, None, None]
    return torch.einsum("bnij,bjnh->binh", scores.softmax(-1), v)


def xlnet(q, k, v, bias, forbidden):
    scores = (torch.einsum("binh,bjnh->bnij", q, k) + bias) * 0.5
    scores = scores - 1e30 * torch.einsum("bj->bj", forbidden)[:, None, None]
    return torch.einsum("bnij,bjnh->binh", scores.softmax(3), v)


@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("model", [funnel, xlnet])
def test_products_of_einsum_are_attention(model, batch):
    key, value = (random(batch, KEYS, HEADS, DIM) for _ in range(2))
    query, bias = random(batch, QUERIES, HEADS, DIM), random(batch, HEADS, QUERIES, KEYS)
    graph = capture(model, query, key, value, bias, (random(batch, KEYS) > 1.0).float())
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fuse_attention, exact=False)
    assert graph.only(sdpa) and not graph.calls(*PRODUCTS, aten.softmax.int)


def test_scores_that_are_subtracted_stay():
    def model(q, k, v, bias):
        return torch.softmax(bias - q @ k.mT, -1) @ v

    query, key = random(1, HEADS, QUERIES, DIM), random(1, HEADS, KEYS, DIM)
    graph = capture(model, query, key, key + 1, random(1, HEADS, QUERIES, KEYS))
    graph.apply(canonicalize)
    assert graph.apply(fuse_attention) == 0 and graph.calls(aten.softmax.int)


@pytest.mark.parametrize("negations", [1, 2, 3])
def test_a_condition_that_is_negated_chooses_the_other_way(negations):
    def model(q, k, forbidden):
        for _ in range(negations):
            forbidden = ~forbidden
        return torch.softmax((q @ k.mT).masked_fill(forbidden, -3e38), -1) @ k

    query, key = random(1, HEADS, QUERIES, DIM), random(1, HEADS, KEYS, DIM)
    graph = capture(model, query, key, random(QUERIES, KEYS) > -1)
    graph.apply(canonicalize)
    assert graph.apply(fuse_attention, exact=False)
    assert graph.only(sdpa) and not graph.calls(aten.bitwise_not.default, aten.logical_not.default)
