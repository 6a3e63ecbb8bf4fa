"""Networks that no package here holds: YOLO's detectors, CycleGAN's generator, a temporal convolution network."""

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


class Conv(nn.Sequential):
    """Convolution, batch norm and SiLU, as YOLO's networks are built of them."""

    def __init__(self, inner: int, outer: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        conv = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outer), nn.SiLU(inplace=True))


class Bottleneck(nn.Module):
    """Two convolutions and a residual."""

    def __init__(self, width: int, is_residual: bool) -> None:
        super().__init__()
        self.layers, self.is_residual = nn.Sequential(Conv(width, width, 3), Conv(width, width, 3)), is_residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)


class CrossStage(nn.Module):
    """YOLOv8's C2f: half of the channels goes through bottlenecks, and every step of it is joined."""

    def __init__(self, inner: int, outer: int, count: int = 1, is_residual: bool = False) -> None:
        super().__init__()
        self.first, self.last = Conv(inner, outer), Conv((2 + count) * (outer // 2), outer)
        self.blocks = nn.ModuleList(Bottleneck(outer // 2, is_residual) for _ in range(count))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.first(x).chunk(2, 1))
        parts.extend(block(parts[-1]) for block in self.blocks)
        return self.last(torch.cat(parts, 1))


class PoolingPyramid(nn.Module):
    """SPPF: three pools of five pixels, one behind the other."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.first, self.last, self.pool = Conv(inner, inner // 2), Conv(inner * 2, outer), nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.first(x)]
        parts.extend(self.pool(parts[-1]) for _ in range(3))
        return self.last(torch.cat(parts, 1))


class PixelAttention(nn.Module):
    """YOLO11's C2PSA: half of the channels goes through attention over pixels and two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.half, self.heads, self.head_dim = width // 2, max(width // 128, 1), 64
        self.key_dim = self.head_dim // 2
        self.first, self.last = Conv(width, width), Conv(width, width)
        self.qkv = nn.Conv2d(self.half, self.half + 2 * self.heads * self.key_dim, 1)
        self.position = nn.Conv2d(self.half, self.half, 3, padding=1, groups=self.half)
        self.project = nn.Conv2d(self.half, self.half, 1)
        self.feed = nn.Sequential(Conv(self.half, width), nn.Conv2d(width, self.half, 1))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        batch, width, height, columns = x.shape
        sizes = [self.key_dim, self.key_dim, self.head_dim]
        qkv = self.qkv(x).view(batch, self.heads, 2 * self.key_dim + self.head_dim, height * columns)
        q, k, v = qkv.split(sizes, 2)
        weights = ((q.transpose(-2, -1) @ k) * self.key_dim**-0.5).softmax(-1)
        seen = (v @ weights.transpose(-2, -1)).view(batch, width, height, columns)
        return self.project(seen + self.position(v.reshape(batch, width, height, columns)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, x = self.first(x).split([self.half, self.half], 1)
        x = x + self.attend(x)
        return self.last(torch.cat([kept, x + self.feed(x)], 1))


class Detector(nn.Module):
    """YOLOv8n: backbone, neck and decoded heads; with `attends` YOLO11's attention behind the pyramid of pools."""

    def __init__(self, attends: bool = False, classes: int = 80, bins: int = 16) -> None:
        super().__init__()
        self.bins, self.classes = bins, classes
        self.stem = nn.Sequential(Conv(3, 16, 3, 2), Conv(16, 32, 3, 2), CrossStage(32, 32, 1, True))
        self.third = nn.Sequential(Conv(32, 64, 3, 2), CrossStage(64, 64, 2, True))
        self.fourth = nn.Sequential(Conv(64, 128, 3, 2), CrossStage(128, 128, 2, True))
        last = [PixelAttention(256)] if attends else []
        self.fifth = nn.Sequential(Conv(128, 256, 3, 2), CrossStage(256, 256, 1, True), PoolingPyramid(256, 256), *last)
        self.up4, self.up3 = CrossStage(384, 128), CrossStage(192, 64)
        self.down4 = nn.ModuleList([Conv(64, 64, 3, 2), CrossStage(192, 128)])
        self.down5 = nn.ModuleList([Conv(128, 128, 3, 2), CrossStage(384, 256)])
        self.grow = nn.Upsample(scale_factor=2)
        widths = (64, 128, 256)
        self.boxes = nn.ModuleList(
            nn.Sequential(Conv(w, 64, 3), Conv(64, 64, 3), nn.Conv2d(64, 4 * bins, 1)) for w in widths
        )
        self.scores = nn.ModuleList(
            nn.Sequential(Conv(w, 80, 3), Conv(80, 80, 3), nn.Conv2d(80, classes, 1)) for w in widths
        )
        self.distances = nn.Conv2d(bins, 1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        three = self.third(self.stem(x))
        four = self.fourth(three)
        five = self.fifth(four)
        four = self.up4(torch.cat([self.grow(five), four], 1))
        three = self.up3(torch.cat([self.grow(four), three], 1))
        four = self.down4[1](torch.cat([self.down4[0](three), four], 1))
        five = self.down5[1](torch.cat([self.down5[0](four), five], 1))
        features = (three, four, five)
        levels = zip(self.boxes, self.scores, features, strict=True)
        heads = [torch.cat([boxes(f), scores(f)], 1) for boxes, scores, f in levels]
        flat = torch.cat([head.view(x.shape[0], 4 * self.bins + self.classes, -1) for head in heads], 2)
        boxes, scores = flat.split((4 * self.bins, self.classes), 1)
        return torch.cat([self._decoded(boxes, features), scores.sigmoid()], 1)

    def _decoded(self, boxes: torch.Tensor, features: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Expected distances to the sides, as centers and sizes in pixels."""
        batch, _, count = boxes.shape
        bins = boxes.view(batch, 4, self.bins, count).transpose(2, 1).softmax(1)
        before, behind = self.distances(bins).view(batch, 4, count).chunk(2, 1)
        grids, strides = [], []
        for stride, feature in zip((8, 16, 32), features, strict=True):
            height, width = feature.shape[2:]
            y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
            grids.append(torch.stack((x, y), -1).view(-1, 2))
            strides.append(torch.full((height * width, 1), float(stride)))
        anchors, scale = torch.cat(grids).T[None], torch.cat(strides).T
        start, end = anchors - before, anchors + behind
        return torch.cat(((start + end) / 2, end - start), 1) * scale
