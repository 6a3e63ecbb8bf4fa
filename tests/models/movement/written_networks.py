"""Networks that no package here holds: CycleGAN's generator, a temporal convolution network, MONAI's U-Net."""

from __future__ import annotations

import torch
from torch import nn


class TemporalBlock(nn.Module):
    """Two dilated causal convolutions and a residual: Bai, Kolter & Koltun 2018, https://arxiv.org/abs/1803.01271"""

    def __init__(self, inner: int, outer: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.pad = (kernel - 1) * dilation
        self.conv1 = nn.utils.parametrizations.weight_norm(
            nn.Conv1d(inner, outer, kernel, padding=self.pad, dilation=dilation)
        )
        self.conv2 = nn.utils.parametrizations.weight_norm(
            nn.Conv1d(outer, outer, kernel, padding=self.pad, dilation=dilation)
        )
        self.down = nn.Conv1d(inner, outer, 1) if inner != outer else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.conv1(x)[:, :, : -self.pad].contiguous())
        y = torch.relu(self.conv2(y)[:, :, : -self.pad].contiguous())
        return torch.relu(y + (x if self.down is None else self.down(x)))


def temporal_network() -> tuple[nn.Module, tuple[torch.Tensor]]:
    """A temporal convolution network that classifies the last step of a sequence."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [32, 64, 64, 64, 64]
            pairs = zip(widths, widths[1:], strict=False)
            self.blocks = nn.Sequential(*(TemporalBlock(a, b, 3, 2**i) for i, (a, b) in enumerate(pairs)))
            self.head = nn.Linear(64, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.blocks(x)[:, :, -1])

    return Network(), (torch.randn(1, 32, 128),)


class ResidualBlock(nn.Module):
    """A block of CycleGAN's generator: Zhu et al. 2017, https://arxiv.org/abs/1703.10593"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width), nn.ReLU(True),
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


def cycle_gan() -> tuple[nn.Module, tuple[torch.Tensor]]:
    """CycleGAN's generator with 6 blocks (9 for images of 256 pixels)."""
    width = 64
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU(True)]
    for size in (width, 2 * width):
        layers += [nn.Conv2d(size, 2 * size, 3, 2, 1), nn.InstanceNorm2d(2 * size), nn.ReLU(True)]
    layers += [ResidualBlock(4 * width) for _ in range(6)]
    for size in (4 * width, 2 * width):
        layers += [nn.ConvTranspose2d(size, size // 2, 3, 2, 1, 1), nn.InstanceNorm2d(size // 2), nn.ReLU(True)]
    layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
    return nn.Sequential(*layers), (torch.randn(1, 3, 128, 128),)


def normalized(conv: nn.Module, width: int) -> list[nn.Module]:
    """A convolution with the norm and the activation behind it in MONAI's U-Net."""
    return [conv, nn.InstanceNorm2d(width), nn.PReLU()]


class ResidualUnit(nn.Module):
    """Some convolutions of three pixels, the first of which may shrink the image, and a convolution around them."""

    def __init__(self, inner: int, outer: int, stride: int = 1, count: int = 2, is_last: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(count):
            conv = nn.Conv2d(outer if index else inner, outer, 3, 1 if index else stride, 1)
            layers += [conv] if is_last and index == count - 1 else normalized(conv, outer)
        self.layers, self.around = nn.Sequential(*layers), nn.Identity()
        if stride > 1 or inner != outer:
            self.around = nn.Conv2d(inner, outer, 3, stride, 1) if stride > 1 else nn.Conv2d(inner, outer, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) + self.around(x)


class UNetLevel(nn.Module):
    """A level of the U-Net: what is below it sees a smaller image, and is joined with what it saw itself."""

    def __init__(self, inner: int, outer: int, widths: list[int], is_top: bool = True) -> None:
        super().__init__()
        width, *deeper = widths
        self.down = ResidualUnit(inner, width, 2)
        if len(deeper) > 1:
            self.below, joined = UNetLevel(width, width, deeper, False), 2 * width
        else:
            self.below, joined = ResidualUnit(width, deeper[0]), width + deeper[0]
        grow = nn.ConvTranspose2d(joined, outer, 3, 2, 1, 1)
        self.up = nn.Sequential(*normalized(grow, outer), ResidualUnit(outer, outer, count=1, is_last=is_top))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = self.down(x)
        return self.up(torch.cat([seen, self.below(seen)], 1))


def residual_unet() -> tuple[nn.Module, tuple[torch.Tensor]]:
    """MONAI's U-Net of images with residual units: Kerfoot et al. 2018, https://doi.org/10.1007/978-3-030-12029-0_40"""
    return UNetLevel(1, 2, [16, 32, 64, 128, 256]), (torch.randn(1, 1, 128, 128),)
