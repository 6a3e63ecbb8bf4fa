"""Boxes decoded from parts of a few rows or columns are one product; what else reads a part keeps the parts."""

import pytest
import torch
from captured import Module, capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.joined_sums import fuse_joined_sums
from tt_dynamo.passes.normalize.canonicalize import canonicalize

CUTS = (aten.slice.Tensor, aten.split.Tensor, aten.split_with_sizes.default)


def distances_to_boxes(s, x):
    """YOLO's decoding of distances to sides, x [1, 4, boxes]."""
    near, far = x.chunk(2, 1)
    anchors = torch.arange(24.0).view(1, 2, 12) + 0.5
    start, end = anchors - near, anchors + far
    return torch.cat([(start + end) / 2, end - start], 1) * 8


def centers_to_corners(s, x):
    """x [batch, boxes, 4]: centers and sizes."""
    center, size = x.split(2, -1)
    return torch.cat([center - 0.5 * size, center + 0.5 * size], -1).sigmoid()


def corners_to_centers(s, x):
    a, b = x[..., :2], x[..., 2:]
    return torch.cat(((a + b) / 2, b - a), -1)


def fused(forward, shape):
    graph = capture(Module(forward=forward), random(*shape))
    return graph, graph.apply(canonicalize, fuse_joined_sums, exact=False)


@pytest.mark.parametrize(
    ("forward", "shape", "target"),
    [
        (distances_to_boxes, (1, 4, 12), aten.matmul.default),
        (centers_to_corners, (2, 9, 4), operators.linear),
        (corners_to_centers, (3, 7, 4), operators.linear),
    ],
)
def test_parts_are_one_product(forward, shape, target):
    graph, count = fused(forward, shape)
    assert count == 1 and len(graph.calls(target)) == 1
    assert not [node for node in graph.calls(*CUTS) if node.args[0].op == "placeholder"]


@pytest.mark.parametrize(
    ("forward", "shape"),
    [
        (lambda s, x: torch.cat([x[..., :2] * x[..., 2:], x[..., 2:]], -1), (2, 9, 4)),  # no sum
        (lambda s, x: torch.cat([x[..., 1:2], x[..., :1]], -1), (2, 9, 2)),  # a move, which an infinity survives
        (lambda s, x: torch.cat([x[..., :2].exp(), x[..., 2:]], -1), (2, 9, 4)),
        (distances_to_boxes, (2, 4, 12)),  # a matrix for each image
        (lambda s, x: (torch.cat([x[..., 1:2] + x[..., :1], x[..., :1]], -1), x[..., :1] * 2), (2, 9, 4)),
        (lambda s, x: torch.cat([x[..., 32:], -1 * x[..., :32]], -1), (2, 9, 64)),  # whole tiles
    ],
)
def test_other_parts_stay(forward, shape):
    graph, count = fused(forward, shape)
    assert count == 0 and graph.calls(aten.cat.default)
