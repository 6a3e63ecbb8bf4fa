"""Detectors of torchvision: networks on the device, and what chooses among boxes in eager torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparison import pcc

import tt_dynamo

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean_dynamo", "board_device")]

SIZES = {"min_size": 64, "max_size": 96}
REGIONS = {**SIZES, "rpn_pre_nms_top_n_test": 50, "rpn_post_nms_top_n_test": 10, "box_detections_per_img": 5}


def backbone(first: int = 1, more: Any = None) -> Any:
    """A ResNet of four blocks under a pyramid of 64 channels, of its stages from `first` on."""
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.resnet import BasicBlock, ResNet

    stages = {f"layer{stage}": str(stage - first) for stage in range(first, 5)}
    widths = [32 * 2**stage for stage in range(first, 5)]
    return BackboneWithFPN(ResNet(BasicBlock, [1, 1, 1, 1]), stages, widths, 64, more)


def faster_rcnn() -> Any:
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    return fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, num_classes=5, **SIZES)


def mask_rcnn() -> Any:
    from torchvision.models.detection import MaskRCNN

    return MaskRCNN(backbone(), 5, **REGIONS)


def keypoint_rcnn() -> Any:
    from torchvision.models.detection import KeypointRCNN

    return KeypointRCNN(backbone(), 2, num_keypoints=5, **REGIONS)


def fcos() -> Any:
    from torchvision.models.detection import FCOS
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    return FCOS(backbone(2, LastLevelP6P7(64, 64)), 5, **SIZES)


def retinanet() -> Any:
    from torchvision.models.detection import RetinaNet
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    return RetinaNet(backbone(2, LastLevelP6P7(64, 64)), 5, **SIZES)


def ssdlite() -> Any:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)


DETECTORS = [faster_rcnn, mask_rcnn, keypoint_rcnn, fcos, retinanet, ssdlite]


def built(build: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return build().eval()


def assert_alike(ours: Any, eager: Any) -> None:
    mine, theirs = map(torch.utils._pytree.tree_leaves, (ours, eager))
    assert [x.shape for x in mine] == [x.shape for x in theirs]
    assert all(pcc(one, other) >= 0.99 for one, other in zip(mine, theirs, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("build", DETECTORS)
def test_backbone_necks_and_heads_are_one_graph_of_eager_s_values(build: Callable[[], Any]) -> None:
    model, images = built(build), torch.rand(1, 3, 64, 96)
    head = model.rpn.head if hasattr(model, "rpn") else model.head

    def heads(images: torch.Tensor) -> Any:
        features = [*model.backbone(images).values()]
        return features, head(features)

    eager = heads(images)
    with tt_dynamo.record() as reports:
        ours = torch.compile(heads, backend="ttnn")(images)
    (report,) = reports
    assert report.fallbacks == []
    assert_alike(ours, eager)


# Of those whose last stage reads what was detected, the count turns on how many boxes there are.
@torch.no_grad()
@pytest.mark.parametrize("build", [faster_rcnn, fcos])
def test_the_whole_falls_back_for_regions_alone_in_no_more_graphs_than_plain_torch(build: Callable[[], Any]) -> None:
    model, images, graphs = built(build), [torch.rand(3, 64, 96)], []

    def plain(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compile(model, backend=plain)(images)
    torch._dynamo.reset()
    with tt_dynamo.record() as reports:
        torch.compile(model, backend="ttnn")(images)
    assert len(reports) <= len(graphs)
    assert all("chooses among a detector's boxes" in fallback.reason for r in reports for fallback in r.fallbacks)


@torch.no_grad()
@pytest.mark.parametrize("build", [faster_rcnn, mask_rcnn, keypoint_rcnn])
def test_of_eager_s_proposals_the_second_stage_makes_eager_s_values(build: Callable[[], Any]) -> None:
    from torchvision.models.detection.image_list import ImageList

    model, images = built(build), torch.rand(1, 3, 64, 96)
    sizes, regions = [(64, 96)], model.roi_heads
    features = model.backbone(images)
    proposals, _ = model.rpn(ImageList(images, sizes), features)

    def second_stage(features: dict[str, torch.Tensor], proposals: list[torch.Tensor]) -> Any:
        found = [regions.box_predictor(regions.box_head(regions.box_roi_pool(features, proposals, sizes)))]
        for kind in ("mask", "keypoint"):
            if getattr(regions, f"has_{kind}")():
                pool, head, predictor = (
                    getattr(regions, f"{kind}_{part}") for part in ("roi_pool", "head", "predictor")
                )
                found.append(predictor(head(pool(features, proposals, sizes))))
        return found

    eager = second_stage(features, proposals)
    with tt_dynamo.record() as reports:
        ours = torch.compile(second_stage, backend="ttnn")(features, proposals)
    assert sum(report.device_programs for report in reports) >= 4
    assert all("chooses among a detector's boxes" in fallback.reason for r in reports for fallback in r.fallbacks)
    assert_alike(ours, eager)
