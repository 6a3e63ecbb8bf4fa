"""Heads of two streams are split before the streams are joined, where each stream is projected for itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.heads import fuse_merge_heads
from tt_dynamo.passes.fuse.spelled_out import fuse_rms_norm
from tt_dynamo.passes.heads.joint_heads import split_joint_heads
from tt_dynamo.passes.heads.qkv import fuse_qkv
from tt_dynamo.passes.normalize.canonicalize import canonicalize

HEADS, HEAD_DIM = 2, 32
WIDTH = HEADS * HEAD_DIM
STREAMS = random(1, 8, WIDTH), random(1, 24, WIDTH)
NORMS = {
    "none": lambda x: x,
    "rms": lambda x: F.rms_norm(x, (HEAD_DIM,), torch.linspace(0.5, 1.5, HEAD_DIM)),
    "layer": lambda x: F.layer_norm(x, (HEAD_DIM,), torch.linspace(0.5, 1.5, HEAD_DIM)),
}


class Joint(torch.nn.Module):
    def __init__(self, norm, dim=1):
        super().__init__()
        self.projections = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(6))
        self.norm, self.dim = norm, dim

    def heads(self, x, three):
        q, k, v = (projection(x).unflatten(-1, (HEADS, HEAD_DIM)) for projection in three)
        return self.norm(q), self.norm(k), v

    def forward(self, text, image):
        both = zip(self.heads(text, self.projections[:3]), self.heads(image, self.projections[3:]), strict=True)
        q, k, v = (torch.cat(parts, self.dim).transpose(1, 2) for parts in both)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


PREPARED = (canonicalize, fuse_rms_norm)


@pytest.mark.parametrize("norm", NORMS)
def test_each_stream_gets_its_heads_from_one_projection(norm):
    torch.manual_seed(0)
    graph = capture(Joint(NORMS[norm]), *STREAMS)
    assert graph.apply(*PREPARED, split_joint_heads, exact=False) == 3
    assert graph.apply(fuse_qkv, exact=False) == 2
    graph.apply(fuse_merge_heads, exact=False)
    assert len(graph.calls(operators.split_heads)) == 2
    assert not graph.calls(aten.permute.default) or all(
        len(node.args[1]) == 2 for node in graph.calls(aten.permute.default)
    ), "of weights alone"


OTHERS = {
    "what is no projection": lambda x, y: torch.cat((x.unflatten(-1, (2, 32)), y.unflatten(-1, (2, 32))), 1),
    "joined heads": lambda x, y: torch.cat((x[:, :8].unflatten(-1, (2, 32)), y[:, :8].unflatten(-1, (2, 32))), 2),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_stay(name):
    graph = capture(lambda x, y: OTHERS[name](x, y).transpose(1, 2) + 1, *STREAMS)
    assert graph.apply(canonicalize, split_joint_heads) == 0


def test_a_join_that_others_read_stays():
    joint = Joint(NORMS["none"])

    def run(text, image):
        parts = (joint.heads(text, joint.projections[:3])[0], joint.heads(image, joint.projections[3:])[0])
        q = torch.cat(parts, 1)
        return q + 1, q.transpose(1, 2) + 1

    graph = capture(run, *STREAMS)
    assert graph.apply(canonicalize, split_joint_heads) == 0
