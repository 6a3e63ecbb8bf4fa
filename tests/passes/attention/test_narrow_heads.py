"""Linear attention of narrow heads is a few products of all heads, with no move between them; others stay."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.linear_attention import fuse_linear_attention
from tt_dynamo.passes.attention.narrow_heads import join_narrow_heads
from tt_dynamo.passes.normalize.canonicalize import canonicalize

HEADS, WIDTH = 3, 4


def attend(x: torch.Tensor, width: int = WIDTH, activation=torch.relu, ones: float = 1.0) -> torch.Tensor:
    """EfficientViT's attention, of x [batch, seq, heads * 3 * width]: https://arxiv.org/abs/2205.14756"""
    batch, seq, _ = x.shape
    q, k, v = x.reshape(batch, seq, HEADS, 3 * width).transpose(1, 2).chunk(3, -1)
    y = activation(q) @ (activation(k).transpose(-1, -2) @ F.pad(v, (0, 1), value=ones))
    return (y[..., :-1] / (y[..., -1:] + 1e-5)).transpose(1, 2).reshape(batch, seq, -1)


def rewritten(batch: int = 1, width: int = WIDTH, **options):
    graph = capture(Module(forward=lambda s, x: attend(x, width, **options)), random(batch, 7, 3 * HEADS * width))
    graph.apply(canonicalize)
    return graph, graph.apply(fuse_linear_attention, join_narrow_heads, exact=False)


def test_heads_are_attended_to_at_once():
    graph, count = rewritten()
    assert count == 1 and len(graph.calls(operators.linear)) == 4
    assert not graph.calls(aten.slice.Tensor, aten.split.Tensor, aten.constant_pad_nd.default)
    assert [node.args[1] for node in graph.calls(aten.permute.default)] == [[0, 2, 1]]


@pytest.mark.parametrize(
    "options", [{"batch": 2}, {"width": 32}, {"activation": torch.sigmoid}, {"ones": 2.0}, {"width": 128}]
)
def test_what_is_no_narrow_linear_attention_of_one_image_stays(options):
    _, count = rewritten(**options)
    assert count == 0
