"""Swin: windows that are shifted, biased by relative position, merged, and back, without fallbacks."""

import os

import pytest
import torch

import tt_dynamo

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


def torchvision_swin():
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([4, 4], embed_dim=32, depths=[2, 1], num_heads=[1, 2], window_size=[7, 7], num_classes=10)


def timm_swin():
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(img_size=56, embed_dim=32, depths=(2,), num_heads=(1,), num_classes=10)


def timm_swin_v2():
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    options = {"embed_dim": 32, "depths": (2,), "num_heads": (1,), "num_classes": 10}
    return SwinTransformerV2(img_size=56, window_size=7, **options)


@pytest.mark.parametrize("build", [torchvision_swin, timm_swin, timm_swin_v2])
def test_swin_runs_on_the_device_whole(build):
    torch.manual_seed(0)
    model, image = build().eval(), torch.randn(2, 3, 56, 56)
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        output = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD})(image)
        expected = model(image)
    (report,) = reports
    assert not report.fallbacks, report.fallbacks
    assert report.host_nodes <= 3  # rows of patches before they go up, permuted, and the shape of the output
    assert torch.corrcoef(torch.stack([output.flatten(), expected.flatten()]))[0, 1] >= 0.99
    torch.testing.assert_close(output, expected, rtol=0.0, atol=0.05 * expected.abs().max().item())
    lookups = [operation for operation in report.operations if operation.target == "ttnn.embedding"]
    assert len(lookups) == 3, "into the first windows, from those to shifted ones, and back to the image"
    assert report.movement.operations.get("ttnn.permute", 0) <= 2, "of the patches, and of those that merge"
    assert report.launches["ttnn.transformer.scaled_dot_product_attention"] >= 2
