"""YOLO's detectors of the smallest size, written from their papers: v8, 11 and 12, which differ in stages and heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class Conv(nn.Sequential):
    """Convolution, batch norm and SiLU, as YOLO's networks are built of them."""

    def __init__(self, inner: int, outer: int, kernel: int = 1, stride: int = 1, groups: int = 1, silu: bool = True):
        conv = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outer), nn.SiLU(inplace=True) if silu else nn.Identity())


def by_channel(inner: int, outer: int) -> nn.Sequential:
    """A convolution by channel and one of pixels."""
    return nn.Sequential(Conv(inner, inner, 3, groups=inner), Conv(inner, outer))


class Bottleneck(nn.Module):
    """Two convolutions and a residual. part: of the channels that are between them."""

    def __init__(self, width: int, is_residual: bool, part: float = 1.0) -> None:
        super().__init__()
        inner = int(width * part)
        self.layers, self.is_residual = nn.Sequential(Conv(width, inner, 3), Conv(inner, width, 3)), is_residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)


class Partial(nn.Module):
    """C3k: half of the channels goes through two bottlenecks, half through a convolution of pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.first, self.aside, self.last = Conv(width, half), Conv(width, half), Conv(2 * half, width)
        self.blocks = nn.Sequential(Bottleneck(half, True), Bottleneck(half, True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.cat([self.blocks(self.first(x)), self.aside(x)], 1))


class CrossStage(nn.Module):
    """C2f and C3k2: half of the channels goes through blocks, and every step of it is joined."""

    def __init__(self, inner: int, outer: int, half: int, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.first, self.last = Conv(inner, 2 * half), Conv((2 + len(blocks)) * half, outer)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.first(x).chunk(2, 1))
        parts.extend(block(parts[-1]) for block in self.blocks)
        return self.last(torch.cat(parts, 1))


def stage_of_8(inner: int, outer: int, count: int = 1, is_residual: bool = False) -> CrossStage:
    return CrossStage(inner, outer, outer // 2, [Bottleneck(outer // 2, is_residual) for _ in range(count)])


def stage_of_11(inner: int, outer: int, is_partial: bool = False, part: float = 0.5) -> CrossStage:
    half = int(outer * part)
    return CrossStage(inner, outer, half, [Partial(half) if is_partial else Bottleneck(half, True, 0.5)])


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
        self.qkv = Conv(self.half, self.half + 2 * self.heads * self.key_dim, silu=False)
        self.position = Conv(self.half, self.half, 3, groups=self.half, silu=False)
        self.project = Conv(self.half, self.half, silu=False)
        self.feed = nn.Sequential(Conv(self.half, width), Conv(width, self.half, silu=False))

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


class AreaAttention(nn.Module):
    """A block of YOLO12: attention among the pixels of each of some areas, bands of rows, and two convolutions."""

    def __init__(self, width: int, areas: int) -> None:
        super().__init__()
        self.heads, self.head_dim, self.areas = width // 32, 32, areas
        self.qkv, self.project = Conv(width, 3 * width, silu=False), Conv(width, width, silu=False)
        self.position = Conv(width, width, 7, groups=width, silu=False)
        self.feed = nn.Sequential(Conv(width, 2 * width), Conv(2 * width, width, silu=False))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        batch, width, height, columns = x.shape
        bands, pixels = batch * self.areas, height * columns // self.areas
        qkv = self.qkv(x).flatten(2).transpose(1, 2).reshape(bands, pixels, 3 * width)
        by_head = qkv.view(bands, pixels, self.heads, 3 * self.head_dim).permute(0, 2, 3, 1)
        q, k, v = by_head.split([self.head_dim] * 3, dim=2)
        weights = ((q.transpose(-2, -1) @ k) * self.head_dim**-0.5).softmax(-1)

        def image(tokens: torch.Tensor) -> torch.Tensor:
            tokens = tokens.permute(0, 3, 1, 2).reshape(batch, height, columns, width)
            return tokens.permute(0, 3, 1, 2).contiguous()

        seen, values = image(v @ weights.transpose(-2, -1)), image(v)
        return self.project(seen + self.position(values))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attend(x)
        return x + self.feed(x)


class AreaStage(nn.Module):
    """YOLO12's A2C2f: steps of two blocks of attention or of one C3k, of which every one is joined."""

    def __init__(self, inner: int, outer: int, count: int = 1, areas: int = 0) -> None:
        super().__init__()
        half = outer // 2
        self.first, self.last = Conv(inner, half), Conv((1 + count) * half, outer)
        self.blocks = nn.ModuleList(
            nn.Sequential(AreaAttention(half, areas), AreaAttention(half, areas)) if areas else Partial(half)
            for _ in range(count)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.first(x)]
        parts.extend(block(parts[-1]) for block in self.blocks)
        return self.last(torch.cat(parts, 1))


class Head(nn.Module):
    """What is predicted of three levels: distances to the sides of boxes, each as 16 bins, and scores of classes."""

    def __init__(self, widths: Sequence[int] = (64, 128, 256), lean: bool = False, classes: int = 80, bins: int = 16):
        super().__init__()
        self.bins, self.classes = bins, classes
        self.boxes = nn.ModuleList(
            nn.Sequential(Conv(w, 64, 3), Conv(64, 64, 3), nn.Conv2d(64, 4 * bins, 1)) for w in widths
        )
        self.scores = nn.ModuleList(
            nn.Sequential(
                *((by_channel(w, 80), by_channel(80, 80)) if lean else (Conv(w, 80, 3), Conv(80, 80, 3))),
                nn.Conv2d(80, classes, 1),
            )
            for w in widths
        )
        self.distances = nn.Conv2d(bins, 1, 1, bias=False)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        levels = zip(self.boxes, self.scores, features, strict=True)
        heads = [torch.cat([boxes(f), scores(f)], 1) for boxes, scores, f in levels]
        batch = features[0].shape[0]
        flat = torch.cat([head.view(batch, 4 * self.bins + self.classes, -1) for head in heads], 2)
        boxes, scores = flat.split((4 * self.bins, self.classes), 1)
        return torch.cat([self._decoded(boxes, features), scores.sigmoid()], 1)

    def _decoded(self, boxes: torch.Tensor, features: Sequence[torch.Tensor]) -> torch.Tensor:
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


class Detector(nn.Module):
    """Backbone, neck and decoded head. stages: down to one eighth, a sixteenth, a 32nd; up, up, down, down again."""

    def __init__(self, stem: nn.Module, backbone: Sequence[nn.Module], neck: Sequence[nn.Module], lean: bool = False):
        super().__init__()
        self.stem, self.backbone, self.neck = stem, nn.ModuleList(backbone), nn.ModuleList(neck)
        self.grow, self.down = nn.Upsample(scale_factor=2), nn.ModuleList([Conv(64, 64, 3, 2), Conv(128, 128, 3, 2)])
        self.head = Head(lean=lean)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        three = self.backbone[0](self.stem(x))
        four = self.backbone[1](three)
        five = self.backbone[2](four)
        four = self.neck[0](torch.cat([self.grow(five), four], 1))
        three = self.neck[1](torch.cat([self.grow(four), three], 1))
        four = self.neck[2](torch.cat([self.down[0](three), four], 1))
        return self.head((three, four, self.neck[3](torch.cat([self.down[1](four), five], 1))))


def yolo8() -> Detector:
    """YOLOv8n."""
    stem = nn.Sequential(Conv(3, 16, 3, 2), Conv(16, 32, 3, 2), stage_of_8(32, 32, 1, True))
    backbone = [
        nn.Sequential(Conv(32, 64, 3, 2), stage_of_8(64, 64, 2, True)),
        nn.Sequential(Conv(64, 128, 3, 2), stage_of_8(128, 128, 2, True)),
        nn.Sequential(Conv(128, 256, 3, 2), stage_of_8(256, 256, 1, True), PoolingPyramid(256, 256)),
    ]
    neck = [stage_of_8(384, 128), stage_of_8(192, 64), stage_of_8(192, 128), stage_of_8(384, 256)]
    return Detector(stem, backbone, neck)


def yolo11() -> Detector:
    """YOLO11n: Khanam & Hussain 2024, https://arxiv.org/abs/2410.17725"""
    stem = nn.Sequential(Conv(3, 16, 3, 2), Conv(16, 32, 3, 2), stage_of_11(32, 64, part=0.25))
    last = (stage_of_11(256, 256, True), PoolingPyramid(256, 256), PixelAttention(256))
    backbone = [
        nn.Sequential(Conv(64, 64, 3, 2), stage_of_11(64, 128, part=0.25)),
        nn.Sequential(Conv(128, 128, 3, 2), stage_of_11(128, 128, True)),
        nn.Sequential(Conv(128, 256, 3, 2), *last),
    ]
    neck = [stage_of_11(384, 128), stage_of_11(256, 64), stage_of_11(192, 128), stage_of_11(384, 256, True)]
    return Detector(stem, backbone, neck, lean=True)


def yolo12() -> Detector:
    """YOLO12n: Tian, Ye & Doermann 2025, https://arxiv.org/abs/2502.12524"""
    stem = nn.Sequential(Conv(3, 16, 3, 2), Conv(16, 32, 3, 2), stage_of_11(32, 64, part=0.25))
    backbone = [
        nn.Sequential(Conv(64, 64, 3, 2), stage_of_11(64, 128, part=0.25)),
        nn.Sequential(Conv(128, 128, 3, 2), AreaStage(128, 128, 2, 4)),
        nn.Sequential(Conv(128, 256, 3, 2), AreaStage(256, 256, 2, 1)),
    ]
    neck = [AreaStage(384, 128), AreaStage(256, 64), AreaStage(192, 128), stage_of_11(384, 256, True)]
    return Detector(stem, backbone, neck, lean=True)
