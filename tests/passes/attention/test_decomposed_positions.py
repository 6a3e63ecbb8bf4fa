"""Relative positions by axes of an image, as SAM and MViT-v2 spell them."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, parameter, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.attention import decomposed_positions
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.attention.decomposed_positions import fuse_decomposed_positions
from tt_dynamo.passes.normalize.canonicalize import canonicalize

sdpa = aten.scaled_dot_product_attention.default


def segment_anything(qkv, rows, columns):
    """[batch, 12, 48]: two heads of 8 over an image of 3 × 4."""
    q, k, v = qkv.view(-1, 12, 3, 2, 8).permute(2, 0, 3, 1, 4).reshape(3, -1, 12, 8).unbind(0)
    image = q.reshape(-1, 3, 4, 8)
    by_row = torch.einsum("bhwc,hkc->bhwk", image, rows)
    by_column = torch.einsum("bhwc,wkc->bhwk", image, columns)
    mask = (by_row[:, :, :, :, None] + by_column[:, :, :, None, :]).reshape(-1, 12, 12)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def multiscale(q, k, v, rows, columns):
    """q [2, 2, 12, 8] over an image of 3 × 4, k and v [2, 2, 6, 8] over one of 3 × 2."""
    scores = (q * 0.5) @ k.transpose(-2, -1)
    image = q.reshape(2, 2, 3, 4, 8)
    by_row = torch.einsum("byhwc,hkc->byhwk", image, rows)
    by_column = torch.einsum("byhwc,wkc->byhwk", image, columns[:, :2])
    scores = (scores.view(2, -1, 3, 4, 3, 2) + by_row.unsqueeze(-1) + by_column.unsqueeze(-2)).view(2, -1, 12, 6)
    return scores.softmax(-1) @ v


def fused(attend, *inputs):
    """The graph with tables for images of 3 × 4 as parameters."""
    tables = parameter(3, 3, 8), parameter(4, 4, 8)
    graph = capture(Module(*tables, forward=lambda module, *given: attend(*given, module.p0, module.p1)), *inputs)
    graph.apply(canonicalize, fuse_decomposed_positions, exact=False)
    return graph


@pytest.mark.parametrize("batch", [1, 2])
def test_positions_of_an_attention_are_one_dense_product(batch):
    graph = fused(segment_anything, random(batch, 12, 48))
    graph.apply(fuse_attention, exact=False)
    assert not graph.calls(aten.bmm.default)
    product, mask = graph.calls(operators.linear)
    assert shape_of(product) == (batch, 2, 12, 3 * 3 + 4 * 4) and shape_of(mask) == (batch, 2, 12, 12)
    assert product.args[0] is graph.only(sdpa).args[0]  # no moves between the heads and their positions


def test_positions_of_keys_of_another_size_are_added_to_scores():
    graph = fused(multiscale, random(2, 2, 12, 8), random(2, 2, 6, 8), random(2, 2, 6, 8))
    assert len(graph.calls(operators.linear)) == 2
    graph.apply(fuse_attention, exact=False)
    assert graph.only(sdpa) and not graph.calls(aten.bmm.default, aten.matmul.default)


def test_tables_that_are_computed_stay():
    graph = capture(segment_anything, random(1, 12, 48), random(3, 3, 8), random(4, 4, 8))
    graph.apply(canonicalize, fuse_decomposed_positions, exact=False)
    assert len(graph.calls(aten.bmm.default)) == 2 and not graph.calls(operators.linear)


def test_tables_of_large_images_stay(monkeypatch):
    monkeypatch.setattr(decomposed_positions, "MOST_COLUMNS", 24)
    assert len(fused(segment_anything, random(1, 12, 48)).calls(aten.bmm.default)) == 2
