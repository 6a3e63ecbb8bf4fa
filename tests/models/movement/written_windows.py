"""Networks of shifted windows that no package here holds: SwinIR and MONAI's SwinUNETR of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def windows_of(x: torch.Tensor, size: int) -> torch.Tensor:
    """[batch, height, width, channels] → [windows, size², channels]"""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // size, size, width // size, size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, channels)


def image_of(windows: torch.Tensor, size: int, height: int, width: int) -> torch.Tensor:
    """[windows, size², channels] → [batch, height, width, channels]"""
    x = windows.view(-1, height // size, width // size, size, size, windows.shape[-1])
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, windows.shape[-1])


class WindowAttention(nn.Module):
    """Attention among the pixels of a window, with a bias for each offset of two: https://arxiv.org/abs/2103.14030"""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.biases = nn.Parameter(torch.randn((2 * size - 1) ** 2, heads) * 0.02)
        places = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
        row, column = places[:, :, None] - places[:, None] + size - 1
        self.register_buffer("offsets", row * (2 * size - 1) + column)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        windows, pixels, width = x.shape
        q, k, v = self.qkv(x).reshape(windows, pixels, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)
        bias = self.biases[self.offsets.view(-1)].view(pixels, pixels, -1).permute(2, 0, 1)
        scores = scores + bias.unsqueeze(0)
        if mask is not None:
            count = mask.shape[0]
            scores = scores.view(windows // count, count, self.heads, pixels, pixels) + mask[:, None][None]
            scores = scores.view(-1, self.heads, pixels, pixels)
        return self.project((scores.softmax(-1) @ v).transpose(1, 2).reshape(windows, pixels, width))


class SwinBlock(nn.Module):
    """Attention in windows, which every second block shifts by half, and two linears. Zeros fill windows."""

    def __init__(self, width: int, heads: int, size: int, is_shifted: bool, ratio: int) -> None:
        super().__init__()
        self.size, self.is_shifted = size, is_shifted
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, size)
        self.feed = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attend(self.norm1(x))
        return x + self.feed(self.norm2(x))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """x [batch, height, width, channels]"""
        size, (_, height, width, _) = self.size, x.shape
        shift = size // 2 if self.is_shifted and min(height, width) > size else 0
        x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
        padded, mask = x.shape[1:3], None
        if shift:
            x, mask = torch.roll(x, (-shift, -shift), (1, 2)), self.mask(*padded, shift)
        x = image_of(self.attention(windows_of(x, size), mask), size, *padded)
        if shift:
            x = torch.roll(x, (shift, shift), (1, 2))
        return x[:, :height, :width].contiguous()

    def mask(self, height: int, width: int, shift: int) -> torch.Tensor:
        """-100 between pixels that the shift brought into one window, [windows, size², size²]."""
        rows, columns = (
            torch.cat([torch.zeros(n - self.size), torch.ones(self.size - shift), torch.full((shift,), 2.0)])
            for n in (height, width)
        )
        parts = windows_of((3 * rows[:, None] + columns)[None, ..., None], self.size).squeeze(-1)
        return torch.where(parts[:, None] != parts[:, :, None], -100.0, 0.0)


def swin_blocks(width: int, heads: int, size: int, ratio: int, count: int = 2) -> nn.Sequential:
    return nn.Sequential(*(SwinBlock(width, heads, size, bool(index % 2), ratio) for index in range(count)))


class RestoringGroup(nn.Module):
    """SwinIR's RSTB: blocks of windows, a convolution, and a residual around both."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.blocks, self.conv = swin_blocks(width, heads, size, 2), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(self.blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class SwinIR(nn.Module):
    """Light super-resolution: Liang et al. 2021, https://arxiv.org/abs/2108.10257"""

    def __init__(self, width: int = 60, heads: int = 6, size: int = 8, groups: int = 2, scale: int = 2) -> None:
        super().__init__()
        self.first, self.behind = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.embedded, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.groups = nn.Sequential(*(RestoringGroup(width, heads, size) for _ in range(groups)))
        self.grow = nn.Sequential(nn.Conv2d(width, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        y = self.groups(self.embedded(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        y = self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.grow(x + self.behind(y))


def swin_ir() -> tuple[nn.Module, tuple[torch.Tensor]]:
    """SwinIR with two groups of two blocks."""
    return SwinIR(), (torch.randn(1, 3, 64, 64),)


class Residual(nn.Module):
    """UNETR's residual block: two convolutions of three pixels with norms, and one of a pixel around them."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.InstanceNorm2d(outer), nn.LeakyReLU(0.01),
            nn.Conv2d(outer, outer, 3, padding=1, bias=False), nn.InstanceNorm2d(outer),
        )  # fmt: skip
        around = [nn.Conv2d(inner, outer, 1, bias=False), nn.InstanceNorm2d(outer)] if inner != outer else []
        self.around = nn.Sequential(*around)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.layers(x) + self.around(x), 0.01)


class Upward(nn.Module):
    """Twice the pixels by a transposed convolution, joined with what the encoder saw there."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.grow, self.block = nn.ConvTranspose2d(inner, outer, 2, 2, bias=False), Residual(2 * outer, outer)

    def forward(self, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return self.block(torch.cat([self.grow(x), seen], 1))


class Merging(nn.Module):
    """Squares of four pixels, [batch, height, width, channels], as one with twice the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squares = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return self.reduction(self.norm(torch.cat(squares, -1)))


class SwinUNETR(nn.Module):
    """A U-Net around a Swin transformer: Hatamizadeh et al. 2022, https://arxiv.org/abs/2201.01266"""

    def __init__(self, width: int = 24, heads: tuple[int, ...] = (3, 6, 12), size: int = 7, classes: int = 2) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(len(heads) + 1)]
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(swin_blocks(w, h, size, 4), Merging(w)) for w, h in zip(widths, heads, strict=False)
        )
        self.seen = nn.ModuleList([Residual(1, width), *(Residual(w, w) for w in widths[:-1])])
        self.deepest = Residual(widths[-1], widths[-1])
        self.up = nn.ModuleList([Upward(w, w // 2) for w in widths[:0:-1]] + [Upward(width, width)])
        self.out = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = [self.patches(x).permute(0, 2, 3, 1)]
        for stage in self.stages:
            states.append(stage(states[-1]))
        images = [F.layer_norm(state, state.shape[-1:]).permute(0, 3, 1, 2) for state in states]
        seen = [block(image) for block, image in zip(self.seen, [x, *images[:-1]], strict=True)]
        x = self.deepest(images[-1])
        for block, there in zip(self.up, reversed(seen), strict=True):
            x = block(x, there)
        return self.out(x)


def swin_unetr() -> tuple[nn.Module, tuple[torch.Tensor]]:
    """MONAI's SwinUNETR of images with three stages."""
    return SwinUNETR(), (torch.randn(1, 1, 96, 96),)
