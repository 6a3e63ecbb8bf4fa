"""Attention of windows in dimensions of their own is attention of rank 4, and rows are all that moves around it."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.attention.heads import fuse_merge_heads
from tt_dynamo.passes.attention.merged_columns import order_merged_columns
from tt_dynamo.passes.attention.window_rows import order_window_rows
from tt_dynamo.passes.heads.qkv import fuse_qkv
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.constants import fold_constants

sdpa = aten.scaled_dot_product_attention.default
BATCH, WINDOWS, SEQ, HEADS, DIM = 2, 3, 5, 4, 8
WIDTH = HEADS * DIM


def windows_first(self, x, mask=None):
    """As Twins has it."""
    qkv = self.p0(x).reshape(BATCH, WINDOWS, SEQ, 3, HEADS, DIM).permute(3, 0, 1, 4, 2, 5)
    y = F.scaled_dot_product_attention(*qkv.unbind(0), attn_mask=mask)
    return self.p1(y.transpose(2, 3).reshape(BATCH, WINDOWS, SEQ, WIDTH))


def heads_first(self, x, mask=None):
    """As NesT has it, heads merged innermost."""
    qkv = self.p0(x).reshape(BATCH, WINDOWS, SEQ, 3, HEADS, DIM).permute(3, 0, 4, 1, 2, 5)
    y = F.scaled_dot_product_attention(*qkv.unbind(0), attn_mask=mask)
    return self.p1(y.permute(0, 2, 3, 4, 1).reshape(BATCH, WINDOWS, SEQ, WIDTH))


def windows_of_rows(self, x):
    """As Hiera has it: neighbours of a window are WINDOWS rows apart."""
    qkv = self.p0(x.flatten(1, 2)).reshape(BATCH, SEQ, WINDOWS, 3, HEADS, DIM).permute(3, 0, 4, 2, 1, 5)
    y = F.scaled_dot_product_attention(*qkv.unbind(0))
    return self.p1(y.transpose(1, 3).reshape(BATCH, -1, WIDTH))


def pooled(self, x):
    """As Hiera has it between stages, here with queries of one row."""
    qkv = self.p0(x.flatten(1, 2)).reshape(BATCH, SEQ, WINDOWS, 3, HEADS, DIM).permute(3, 0, 4, 2, 1, 5)
    q, k, v = qkv.unbind(0)
    y = F.scaled_dot_product_attention(q.reshape(BATCH, HEADS, WINDOWS, SEQ, 1, DIM).amax(3), k, v)
    return self.p1(y.transpose(1, 3).reshape(BATCH, -1, WIDTH))


def one_head(self, x):
    qkv = self.p0(x.flatten(1, 2)).reshape(BATCH, SEQ, WINDOWS, 3, 1, WIDTH).permute(3, 0, 4, 2, 1, 5)
    y = F.scaled_dot_product_attention(*qkv.unbind(0))
    return self.p1(y.transpose(1, 3).reshape(BATCH, -1, WIDTH))


def windows_left(self, x):
    """As Twins has it: windows are rows of an image again where heads are merged."""
    qkv = self.p0(x).reshape(BATCH, WINDOWS, SEQ, 3, HEADS, DIM).permute(3, 0, 1, 4, 2, 5)
    y = F.scaled_dot_product_attention(*qkv.unbind(0))
    return self.p1(y.permute(0, 3, 1, 2, 4).reshape(BATCH, -1, WIDTH))


def captured(forward, *inputs):
    torch.manual_seed(0)
    graph = capture(Module(nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 7), forward=forward), *inputs)
    graph.apply(canonicalize)
    return graph


@pytest.mark.parametrize(
    ("forward", "lookups"),
    [(windows_first, 0), (heads_first, 0), (windows_of_rows, 2), (windows_left, 1)],
)
def test_kernels_split_and_merge_the_heads_of_windows(forward, lookups):
    graph = captured(forward, random(BATCH, WINDOWS, SEQ, WIDTH))
    assert graph.apply(order_window_rows, exact=False) > 0
    assert shape_of(graph.only(sdpa))[::2] == (BATCH * WINDOWS, SEQ)
    for transform in (fuse_attention, order_merged_columns, fuse_qkv, fuse_merge_heads, canonicalize, fold_constants):
        graph.apply(transform, exact=False)
    assert len(graph.calls(operators.attention)) == 1
    assert len(graph.calls(operators.split_heads)) == 1
    assert not graph.calls(aten.permute.default)
    assert len(graph.calls(operators.look_up)) == lookups


def test_one_head_of_windows_is_split_by_a_kernel():
    graph = captured(one_head, random(BATCH, WINDOWS, SEQ, WIDTH))
    for transform in (order_window_rows, fuse_attention, fuse_qkv, fuse_merge_heads):
        graph.apply(transform, exact=False)
    assert len(graph.calls(operators.attention)) == len(graph.calls(operators.split_heads)) == 1


def test_rows_that_heads_of_another_order_read_too_stay():
    def forward(self, x):
        qkv = self.p0(x.flatten(1, 2)).reshape(BATCH, SEQ, WINDOWS, 3, HEADS, DIM).permute(3, 0, 4, 2, 1, 5)
        q, k, v = qkv.unbind(0)
        return F.scaled_dot_product_attention(q, k, v), v.transpose(2, 3).exp()

    graph = captured(forward, random(BATCH, WINDOWS, SEQ, WIDTH))
    graph.apply(order_window_rows, exact=False)
    assert not graph.calls(operators.look_up)


def test_queries_are_pooled_before_their_heads_are_split():
    graph = captured(pooled, random(BATCH, WINDOWS, SEQ, WIDTH))
    assert graph.apply(order_window_rows, exact=False) > 0
    assert shape_of(graph.only(aten.amax.default)) == (BATCH, WINDOWS, 1, WIDTH)
    assert shape_of(graph.only(sdpa)) == (BATCH * WINDOWS, HEADS, 1, DIM)


MASKS = [(SEQ, SEQ), (1, 1, 1, SEQ, SEQ), (WINDOWS, 1, SEQ, SEQ), (BATCH, 1, HEADS, SEQ, SEQ)]


@pytest.mark.parametrize("shape", MASKS, ids=str)
def test_masks_of_all_windows_or_of_each_are_kept(shape):
    graph = captured(windows_first, random(BATCH, WINDOWS, SEQ, WIDTH), random(*shape))
    assert graph.apply(order_window_rows, exact=False) > 0
    attention = graph.only(sdpa)
    assert shape_of(attention) == (BATCH * WINDOWS, HEADS, SEQ, DIM) and len(shape_of(attention.args[3])) == 4


def test_columns_that_mix_rows_are_not_ordered():
    def forward(self, x):
        q, k, v = self.p0(x).reshape(BATCH, SEQ, 3, HEADS, DIM).permute(2, 0, 3, 1, 4).unbind(0)
        return self.p1(F.scaled_dot_product_attention(q, k, v).reshape(BATCH, SEQ, WIDTH))

    graph = captured(forward, random(BATCH, SEQ, WIDTH))
    graph.apply(fuse_attention, exact=False)
    assert graph.apply(order_merged_columns, exact=False) == 0
