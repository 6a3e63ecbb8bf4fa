"""Blocks of convolutional networks: all on the device, and eager torch's answer."""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tt_dynamo

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


def resnet():
    from torchvision.models.resnet import BasicBlock

    shortcut = nn.Sequential(nn.Conv2d(16, 32, 1, 2, bias=False), nn.BatchNorm2d(32))
    return BasicBlock(16, 32, stride=2, downsample=shortcut), (2, 16, 20, 20)


def convnext():
    from timm.models.convnext import ConvNeXtBlock

    return ConvNeXtBlock(32, ls_init_value=0.5), (2, 32, 14, 14)


def mobilenet():
    from torchvision.models.mobilenetv2 import InvertedResidual

    return InvertedResidual(16, 16, 1, 4), (2, 16, 14, 14)


class UNet(nn.Module):
    """One level down and up again, by transposed convolution and by interpolation."""

    def __init__(self) -> None:
        super().__init__()

        def block(channels, out):
            return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU())

        self.first, self.down, self.last = block(3, 16), block(16, 32), block(64, 16)
        self.up = nn.ConvTranspose2d(32, 16, 2, 2)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        fine = self.first(x)
        coarse = self.down(F.max_pool2d(fine, 2))
        larger = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.last(torch.cat([self.up(coarse), larger, fine], 1)))


@pytest.mark.parametrize("make", [resnet, convnext, mobilenet, lambda: (UNet(), (2, 3, 32, 32))])
def test_a_block_runs_on_the_device(make):
    torch.manual_seed(0)
    model, shape = make()
    for _ in range(3):  # statistics of batch norm that are not 0 and 1
        model.train()(torch.randn(shape) * 2 + 0.5)
    model.eval()
    x = torch.randn(shape)
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        expected = model(x)
        found = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD})(x)
    (report,) = reports
    assert not report.fallbacks and report.host_nodes <= 4  # what goes up and comes down is permuted there
    assert found.shape == expected.shape
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.999
    assert (found - expected).norm() < 0.03 * expected.norm()
