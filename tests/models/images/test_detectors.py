"""Detectors of torchvision: networks on the device, and what chooses among boxes in eager torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comparison import pcc

import tt_dynamo

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean_dynamo", "board_device")]


@pytest.fixture
def model() -> Any:
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    sizes = {"num_classes": 5, "min_size": 64, "max_size": 96}
    return fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, **sizes).eval()


@torch.no_grad()
def test_backbone_necks_and_heads_are_one_graph_of_eager_s_values(model: Any) -> None:
    def heads(images: torch.Tensor) -> Any:
        features = model.backbone(images)
        return features, model.rpn.head([*features.values()])

    images = torch.rand(1, 3, 64, 96)
    eager = torch.utils._pytree.tree_leaves(heads(images))
    with tt_dynamo.record() as reports:
        ours = torch.utils._pytree.tree_leaves(torch.compile(heads, backend="ttnn")(images))
    (report,) = reports
    assert report.fallbacks == []
    assert all(pcc(mine, theirs) >= 0.99 for mine, theirs in zip(ours, eager, strict=True))


@torch.no_grad()
def test_the_whole_falls_back_for_regions_alone_in_no_more_graphs_than_plain_torch(model: Any) -> None:
    images, graphs = [torch.rand(3, 64, 96)], []

    def plain(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compile(model, backend=plain)(images)
    torch._dynamo.reset()
    with tt_dynamo.record() as reports:
        torch.compile(model, backend="ttnn")(images)
    assert len(reports) <= len(graphs)
    assert {fallback.node for report in reports for fallback in report.fallbacks} <= {"roi_align"}
