"""Attention among channels: heads of tokens, split at once, without moves of values and results."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, parameter, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, is_call, shape_of
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.attention.cross_covariance import fuse_cross_covariance
from tt_dynamo.passes.attention.heads import fuse_merge_heads
from tt_dynamo.passes.fuse.spelled_out import fuse_rms_norm
from tt_dynamo.passes.heads.qkv import fuse_qkv
from tt_dynamo.passes.moves.transposed_operands import transpose_operands
from tt_dynamo.passes.normalize.canonicalize import canonicalize

PASSES = (fuse_rms_norm, fuse_cross_covariance, fuse_attention, fuse_qkv, fuse_merge_heads, transpose_operands)


def applied(forward, *passes, heads=9, head_dim=32):
    width = heads * head_dim
    model = Module(nn.Linear(16, 3 * width), parameter(heads, 1, 1), nn.Linear(width, 16), forward=forward)
    graph = capture(model, random(3, 5, 16))
    return graph, graph.apply(canonicalize, *passes, exact=False)


def cross_covariance(heads=9, head_dim=32, scale=lambda m: m.p1, normalize=(F.normalize, F.normalize), end=None):
    def forward(m, x):
        q, k, v = m.p0(x).reshape(3, 5, 3, heads, head_dim).permute(2, 0, 3, 4, 1).unbind(0)
        scores = normalize[0](q, dim=-1) @ normalize[1](k, dim=-1).transpose(-2, -1)
        weights = (scores if scale is None else scores * scale(m)).softmax(-1)
        y = (weights @ v).permute(0, 3, 1, 2).reshape(3, 5, heads * head_dim)
        return end(m, y) if end else m.p2(y)

    return forward


def cuts(graph):
    return [cut for cut in graph.calls(aten.slice.Tensor) if len(shape_of(cut)) > 2]


def test_heads_are_split_and_merged_by_kernels():
    graph, _ = applied(cross_covariance(), *PASSES)
    assert graph.only(operators.split_heads) and graph.only(operators.merge_heads)
    assert len(graph.calls(operators.transposed_matmul)) == 2
    moves = [x for x in graph.calls(aten.permute.default) if len(x.args[1]) == 4]
    assert len(moves) == 2, "queries and keys, whose norms are over tokens"


@pytest.mark.parametrize("scale", [None, lambda m: m.p1, lambda m: 2.5], ids=("none", "by head", "a number"))
@pytest.mark.parametrize(("heads", "head_dim"), [(2, 32), (3, 6)])
def test_few_channels_are_one_matrix_without_heads(heads, head_dim, scale):
    forward = cross_covariance(heads, head_dim, scale)
    graph, changed = applied(forward, fuse_rms_norm, fuse_cross_covariance, heads=heads, head_dim=head_dim)
    assert changed == 1
    assert len(graph.calls(operators.rms_norm)) == 1 and len(graph.calls(operators.transposed_matmul)) == 2
    assert [x.args[1] for x in graph.calls(aten.permute.default) if len(x.args[1]) > 2] == [[0, 2, 1]]
    assert not cuts(graph)
    (last,) = [x for x in graph.calls(operators.linear) if is_call(x.args[0], operators.transposed_matmul)]
    assert shape_of(last.args[1]) == (2 * heads * head_dim, 16)


def test_what_no_linear_reads_is_cut():
    forward = cross_covariance(3, 6, end=lambda m, y: y.relu())
    graph, changed = applied(forward, fuse_rms_norm, fuse_cross_covariance, heads=3, head_dim=6)
    assert changed == 1 and [shape_of(cut) for cut in cuts(graph)] == [(3, 5, 18)]


def test_what_is_read_twice_is_cut():
    forward = cross_covariance(3, 6, end=lambda m, y: m.p2(y) + y.sum())
    graph, _ = applied(forward, fuse_rms_norm, fuse_cross_covariance, heads=3, head_dim=6)
    assert len(cuts(graph)) == 1


@pytest.mark.parametrize(
    "forward",
    [
        cross_covariance(2, 32, normalize=(F.normalize, partial(F.normalize, eps=1e-3))),
        cross_covariance(2, 32, normalize=(F.normalize, lambda x, dim: x.relu())),
        cross_covariance(2, 32, scale=lambda m: m.p1.expand(2, 1, 32)),
    ],
    ids=("other norms", "one norm", "a scale by key"),
)
def test_other_scores_keep_their_heads(forward):
    graph, changed = applied(forward, fuse_rms_norm, fuse_cross_covariance, heads=2)
    assert changed == 1 and graph.only(operators.split_heads)


def test_attention_among_tokens_stays():
    def attend(m, x):
        q, k, v = m.p0(x).reshape(3, 5, 3, 9, 32).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1), -1)
        return m.p2((weights @ v).transpose(1, 2).reshape(3, 5, 288))

    assert applied(attend, fuse_cross_covariance)[1] == 0
