"""Attention among the pixels of an image: heads of tokens, split and merged by kernels, without moves of the image."""

import pytest
import torch
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.attention.heads import fuse_merge_heads
from tt_dynamo.passes.attention.pixel_attention import attend_pixels
from tt_dynamo.passes.heads.pad_heads import pad_heads
from tt_dynamo.passes.heads.qkv import fuse_qkv
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.normalize.canonicalize import canonicalize

sdpa = aten.scaled_dot_product_attention.default
PASSES = (attend_pixels, channels_last, fuse_attention, pad_heads, fuse_qkv, fuse_merge_heads)


def weights_of(q, k, scale=32**-0.5):
    return ((q.transpose(-2, -1) @ k) * scale).softmax(-1)


def by_head(m, x, mask=None):
    """YOLO11's: channels are heads of a query, a key and a value, which is wider."""
    q, k, v = m.p0(x).view(2, 2, 128, 24).split([32, 32, 64], 2)
    scores = (q.transpose(-2, -1) @ k) * 32**-0.5
    weights = (scores if mask is None else scores + mask).softmax(-1)
    seen = (v @ weights.transpose(-2, -1)).view(2, 128, 4, 6)
    return m.p2(seen + m.p1(v.reshape(2, 128, 4, 6)))


def by_area(m, x):
    """YOLO12's: two bands of rows, whose pixels come before their channels."""
    qkv = m.p0(x).flatten(2).transpose(1, 2).reshape(4, 12, 256)
    q, k, v = qkv.view(4, 12, 2, 128).permute(0, 2, 3, 1).split([32, 32, 64], 2)

    def image(tokens):
        return tokens.permute(0, 3, 1, 2).reshape(2, 4, 6, 128).permute(0, 3, 1, 2)

    return m.p2(image(v @ weights_of(q, k).transpose(-2, -1)) + m.p1(image(v)))


def applied(forward, *passes, stride=1, kernel=1):
    first = nn.Conv2d(16, 256, kernel, stride, kernel // 2)
    model = Module(first, nn.Conv2d(128, 128, 3, padding=1, groups=128), nn.Conv2d(128, 8, 1), forward=forward)
    graph = capture(model, random(2, 16, 4 * stride, 6 * stride))
    return graph, graph.apply(canonicalize, *passes, exact=False)


@pytest.mark.parametrize("forward", (by_head, by_area))
def test_attention_among_pixels_is_one_of_tokens(forward):
    graph, count = applied(forward, attend_pixels)
    assert count == 1 and len(graph.calls(sdpa)) == 1
    assert not graph.calls(aten.softmax.int)
    assert len(graph.calls(operators.linear)) == 3, "query, key and value"


@pytest.mark.parametrize("forward", (by_head, by_area))
def test_kernels_split_and_merge_the_heads(forward):
    graph, _ = applied(forward, *PASSES)
    assert graph.only(operators.split_heads) and graph.only(operators.attention)
    assert not [x for x in graph.calls(aten.permute.default) if len(x.args[1]) == 4 and x.args[1] == [0, 1, 3, 2]]


def test_values_read_as_an_image_are_a_convolution_of_their_channels():
    graph, _ = applied(by_head, attend_pixels)
    widths = sorted(x.meta["val"].shape[1] for x in graph.calls(aten.convolution.default))
    assert widths == [8, 128, 128]


def with_mask(m, x):
    return by_head(m, x, torch.full((24, 24), -float("inf")).triu(1))


def with_read_scores(m, x):
    q, k, v = m.p0(x).view(2, 2, 128, 24).split([32, 32, 64], 2)
    weights = weights_of(q, k)
    return m.p2((v @ weights.transpose(-2, -1)).view(2, 128, 4, 6)), weights


def with_read_channels(m, x):
    y = m.p0(x)
    q, k, v = y.view(2, 2, 128, 24).split([32, 32, 64], 2)
    return m.p2((v @ weights_of(q, k).transpose(-2, -1)).view(2, 128, 4, 6)), y.relu()


def among_channels(m, x):
    q, k, v = m.p0(x).view(2, 2, 128, 24).split([32, 32, 64], 2)
    weights = torch.softmax(q @ k.transpose(-2, -1), -1)
    return m.p2(torch.cat([weights @ q, v[:, :, :32]], 2).view(2, 128, 4, 6))


@pytest.mark.parametrize("forward", (with_mask, with_read_scores, with_read_channels, among_channels))
def test_other_attention_stays(forward):
    assert applied(forward, attend_pixels)[1] == 0


@pytest.mark.parametrize(("kernel", "stride"), ((3, 1), (1, 2)))
def test_convolutions_of_several_pixels_stay(kernel, stride):
    assert applied(by_head, attend_pixels, kernel=kernel, stride=stride)[1] == 0
