"""Networks of volumes: all on the device, and eager torch's answer."""

import os

import pytest
import torch
from comparison import assert_same
from torch import nn

import tt_dynamo

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


def r3d():
    from torchvision.models.video.resnet import BasicBlock, BasicStem, Conv3DSimple, VideoResNet

    return VideoResNet(BasicBlock, [Conv3DSimple] * 4, [1, 1, 0, 0], BasicStem, 10), (1, 3, 4, 24, 24)


def r2plus1d():
    from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D

    return BasicBlock(16, 32, Conv2Plus1D, 2, nn.Conv3d(16, 32, 1, 2)), (1, 16, 4, 10, 10)


def s3d():
    from torchvision.models.video.s3d import SepInceptionBlock3D

    norm = nn.BatchNorm3d
    return SepInceptionBlock3D(16, 8, 8, 16, 8, 8, 8, norm), (1, 16, 4, 8, 8)


def swin3d():
    from torchvision.models.video import SwinTransformer3d

    model = SwinTransformer3d([2, 4, 4], 32, [2, 1], [1, 2], [2, 4, 4], num_classes=10)
    return model, (1, 3, 4, 32, 32)


class UNet(nn.Module):
    """One level down and up again, normalized by instances."""

    def __init__(self) -> None:
        super().__init__()

        def block(channels, out, stride=1):
            return nn.Sequential(nn.Conv3d(channels, out, 3, stride, 1), nn.InstanceNorm3d(out), nn.LeakyReLU())

        self.first, self.down, self.last = block(1, 16), block(16, 32, 2), block(48, 16)
        self.up = nn.Upsample(scale_factor=2, mode="trilinear")
        self.head = nn.Conv3d(16, 2, 1)

    def forward(self, x):
        fine = self.first(x)
        return self.head(self.last(torch.cat([fine, self.up(self.down(fine))], 1)))


def causal():
    """A convolution of a decoder of video, which reads no later frames, and its norm over channels."""
    layers = nn.ConstantPad3d((1, 1, 1, 1, 2, 0), 0.0), nn.Conv3d(16, 32, 3), nn.SiLU(), nn.Conv3d(32, 16, 1)
    return nn.Sequential(*layers), (1, 16, 3, 8, 8)


class Hourglass(nn.Module):
    """Residual units that halve a volume, and transposed convolutions that double it again: MONAI's UNet and V-Net."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        up = {"stride": 2, "padding": kernel % 2, "output_padding": kernel % 2}
        self.down = nn.Sequential(nn.Conv3d(1, 16, 5, 2, 2), nn.InstanceNorm3d(16), nn.PReLU())
        self.deeper = nn.Sequential(nn.Conv3d(16, 32, 2, 2), nn.BatchNorm3d(32), nn.ELU())
        self.up = nn.Sequential(nn.ConvTranspose3d(32, 16, kernel, **up), nn.InstanceNorm3d(16), nn.PReLU())
        self.last = nn.ConvTranspose3d(32, 2, kernel, **up)

    def forward(self, x):
        fine = self.down(x) + nn.functional.avg_pool3d(x, 2)
        return self.last(torch.cat([fine, self.up(self.deeper(fine))], 1)).softmax(1)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [2, 3])
def test_a_volume_that_shrinks_and_grows_again_runs_on_the_device(kernel):
    torch.manual_seed(0)
    torch._dynamo.reset()
    model, x = Hourglass(kernel).eval(), torch.randn(1, 1, 8, 16, 16)
    with torch.no_grad(), tt_dynamo.record() as reports:
        ours = torch.compile(model, backend="ttnn", options={"device": BOARD, "fallback": "error"})(x)
        eager = model(x)
    assert len(reports) == 1
    assert_same(ours, eager)


@pytest.mark.parametrize("make", [r3d, r2plus1d, s3d, swin3d, lambda: (UNet(), (1, 1, 4, 16, 16)), causal])
def test_a_network_of_volumes_runs_on_the_device(make):
    torch.manual_seed(0)
    torch._dynamo.reset()
    model, shape = make()
    x = torch.randn(shape)
    with torch.no_grad(), tt_dynamo.record() as reports:
        ours = torch.compile(model.eval(), backend="ttnn", options={"device": BOARD, "fallback": "error"})(x)
        eager = model(x)
    assert len(reports) == 1 and not reports[0].fallbacks
    assert_same(ours, eager)


def test_a_residual_network_of_volumes_stays_in_rows():
    torch._dynamo.reset()
    model, shape = r3d()
    with torch.no_grad(), tt_dynamo.record() as reports:
        torch.compile(model.eval(), backend="ttnn", options={"device": BOARD, "dry_run": True})(torch.randn(shape))
    launches = reports[0].launches
    assert launches["ttnn.experimental.conv3d"] == 12
    assert launches.get("ttnn.to_layout", 0) <= 1 and reports[0].movement_share < 0.25
