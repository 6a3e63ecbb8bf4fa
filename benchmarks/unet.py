"""A U-Net, which no library that we test with has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class UNet(nn.Module):
    """Levels of two convolutions each, down by max pooling, up by transposed convolutions, joined by concatenation.

    Source: Ronneberger, Fischer & Brox 2015, https://arxiv.org/abs/1505.04597, with padding and batch norm.
    """

    def __init__(self, channels: int = 32, levels: int = 4) -> None:
        super().__init__()
        widths = [channels << level for level in range(levels + 1)]
        self.down = nn.ModuleList(map(self._block, [3, *widths], widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in reversed(widths[:-1]))
        self.joined = nn.ModuleList(self._block(2 * width, width) for width in reversed(widths[:-1]))
        self.head = nn.Conv2d(channels, 1, 1)

    @staticmethod
    def _block(channels: int, out: int) -> nn.Sequential:
        def convolution(inner: int) -> list[nn.Module]:
            return [nn.Conv2d(inner, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]

        return nn.Sequential(*convolution(channels), *convolution(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [batch, 3, height, width] → [batch, 1, height, width]; height and width divide by 2 ** levels."""
        finer = [self.down[0](x)]
        for block in self.down[1:]:
            finer.append(block(F.max_pool2d(finer[-1], 2)))
        x = finer.pop()
        for up, block in zip(self.up, self.joined, strict=True):
            x = block(torch.cat([up(x), finer.pop()], 1))
        return self.head(x)
