"""Attention among channels: heads of tokens, split at once, without moves of values and results."""

import torch
import torch.nn.functional as F
from captured import Module, capture, parameter, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.attention import fuse_attention
from tt_dynamo.passes.attention.cross_covariance import fuse_cross_covariance
from tt_dynamo.passes.attention.heads import fuse_merge_heads
from tt_dynamo.passes.fuse.spelled_out import fuse_rms_norm
from tt_dynamo.passes.heads.qkv import fuse_qkv
from tt_dynamo.passes.moves.transposed_operands import transpose_operands
from tt_dynamo.passes.normalize.canonicalize import canonicalize

PASSES = (fuse_rms_norm, fuse_cross_covariance, fuse_attention, fuse_qkv, fuse_merge_heads, transpose_operands)


def applied(forward, *passes):
    model = Module(nn.Linear(16, 3 * 64), parameter(2, 1, 1), nn.Linear(64, 16), forward=forward)
    graph = capture(model, random(3, 5, 16))
    return graph, graph.apply(canonicalize, *passes, exact=False)


def cross_covariance(m, x):
    q, k, v = m.p0(x).reshape(3, 5, 3, 2, 32).permute(2, 0, 3, 4, 1).unbind(0)
    weights = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * m.p1).softmax(-1)
    return m.p2((weights @ v).permute(0, 3, 1, 2).reshape(3, 5, 64))


def test_heads_are_split_and_merged_by_kernels():
    graph, _ = applied(cross_covariance, *PASSES)
    assert graph.only(operators.split_heads) and graph.only(operators.merge_heads)
    assert len(graph.calls(operators.transposed_matmul)) == 2
    moves = [x for x in graph.calls(aten.permute.default) if len(x.args[1]) == 4]
    assert len(moves) == 2, "queries and keys, whose norms are over tokens"


def test_attention_among_tokens_stays():
    def attend(m, x):
        q, k, v = m.p0(x).reshape(3, 5, 3, 2, 32).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1), -1)
        return m.p2((weights @ v).transpose(1, 2).reshape(3, 5, 64))

    assert applied(attend, fuse_cross_covariance)[1] == 0
