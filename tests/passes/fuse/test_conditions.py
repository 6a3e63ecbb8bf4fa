"""Scales and shifts of each image: computed as rows, and one call each."""

import torch
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.fuse.conditions import rows_of_images
from tt_dynamo.passes.fuse.gates import fuse_gates
from tt_dynamo.passes.fuse.linears import split_linears
from tt_dynamo.passes.fuse.scales import fold_offsets
from tt_dynamo.passes.fuse.spelled_out import fuse_layer_norm
from tt_dynamo.passes.normalize.canonicalize import canonicalize

WIDTH = 8


def adapted(norm, x, shift, scale, gate):
    return x + gate * torch.sigmoid(norm(x) * (1 + scale) + shift)


def chunked(m, x, condition):
    shift, scale, gate = m.p0(nn.functional.silu(condition)).chunk(3, 1)
    return adapted(m.p1, x, shift[:, None], scale[:, None], gate.unsqueeze(1))


def fused(forward, batch=2, tokens=6):
    members = nn.Linear(4, 3 * WIDTH), nn.LayerNorm(WIDTH, elementwise_affine=False)
    graph = capture(Module(*members, forward=forward), random(batch, tokens, WIDTH), random(batch, 4))
    graph.apply(canonicalize, fuse_layer_norm, rows_of_images, split_linears, fold_offsets, fuse_gates, exact=False)
    return graph


def test_a_block_is_a_linear_for_each_row_and_one_call_for_scale_and_shift():
    graph = fused(chunked)
    assert len(graph.calls(operators.linear)) == 3 and len(graph.calls(aten.addcmul.default)) == 2
    assert not graph.calls(aten.split.Tensor, aten.mul.Tensor)
    moved = [node for node in graph.calls(aten.reshape.default) if shape_of(node) == (2, 1, 4)]
    assert len(moved) == 1, "the condition becomes rows once"
    assert not [node for node in graph.calls(aten.add.Tensor) if shape_of(node)[0] == 2]


def test_one_image_is_left_to_the_norm():
    graph = fused(chunked, batch=1)
    assert len(graph.calls(aten.addcmul.default)) == 1, "the gate"
    assert None not in graph.only(aten.layer_norm.default).args[2:4]


def test_what_is_read_otherwise_too_stays():
    def model(m, x, condition):
        row = m.p0(condition)
        return m.p1(x) * row[:, :WIDTH].unsqueeze(1) + 1.0, row

    graph = fused(model)
    assert shape_of(graph.only(operators.linear)) == (2, 3 * WIDTH)
