"""Blocks of vision transformers that mix more than tokens: how many kernels another one launches, and their values."""

import os

import pytest
import torch
from comparison import assert_close

import tt_dynamo

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("clean_dynamo")]


def xcit(size, depth):
    from timm.models.xcit import Xcit

    return Xcit(
        img_size=size, patch_size=16, embed_dim=128, num_heads=4, depth=depth, cls_attn_layers=1, num_classes=10
    )


def cait(size, depth):
    from timm.models.cait import Cait

    options = {"embed_dim": 192, "num_heads": 4, "init_values": 1e-5, "depth_token_only": 1, "num_classes": 10}
    return Cait(img_size=size, depth=depth, **options)


def mvit(size, depth):
    from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg

    return MultiScaleVit(MultiScaleVitCfg(depths=(1, depth), num_heads=1), img_size=(size, size), num_classes=10)


def edgenext(size, depth):
    from timm.models.edgenext import EdgeNeXt

    options = {"dims": (16, 24, 40, 48), "depths": (1, depth, 1, 1), "global_block_counts": (0, 1, 1, 1)}
    shapes = {"heads": (4, 4, 4, 4), "d2_scales": (2, 2, 3, 4), "num_classes": 10}
    return EdgeNeXt(**options, **shapes)


def coat(size, depth):
    from timm.models.coat import CoaT

    options = {"embed_dims": (64, 64, 64, 64), "serial_depths": (depth, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2)}
    return CoaT(img_size=size, patch_size=4, num_heads=8, num_classes=10, **options)


def compiled(model, image, **options):
    torch._dynamo.reset()
    with torch.no_grad(), tt_dynamo.record() as reports:
        output = torch.compile(model, backend="ttnn", options={"device": BOARD, **options})(image)
    (report,) = reports
    assert not report.fallbacks, report.fallbacks
    return output, report.movement.program_launches


@pytest.mark.parametrize(("build", "depth", "most"), [(xcit, 2, 27), (cait, 2, 11), (mvit, 2, 38)])
def test_another_block_launches_so_many(build, depth, most):
    image = torch.randn(1, 3, 224, 224)
    counts = [compiled(build(224, of).eval(), image, dry_run=True)[1] for of in (depth, depth + 1)]
    assert counts[1] - counts[0] <= most, counts


@pytest.mark.parametrize("build", [xcit, cait, edgenext, coat], ids=lambda build: build.__name__)
def test_values_are_those_of_eager(build):
    torch.manual_seed(0)
    model, image = build(64, 1).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert_close(compiled(model, image)[0], model(image))
