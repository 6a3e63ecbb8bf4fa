"""Convolutions, pools and resizing of images and signals."""

from typing import Any

import torch
import torch.nn.functional as F
from compiled import positive, random, rounded
from torch import nn

from .row import Row, bind

IMAGE, SIGNAL = random(2, 6, 9, 11), random(2, 6, 30)
WITH_INFINITY = IMAGE.clone()
WITH_INFINITY[:, :, 3, 4] = torch.inf
HALVES = (torch.bfloat16, torch.float16)
# The host permutes what comes from the caller and what goes there.
CONV2D, CONV_TRANSPOSE2D, MAX_POOL2D, AVG_POOL2D = "conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d"
SPREAD = f"embedding reshape {MAX_POOL2D}"

CONVOLUTIONS = {
    "of a larger kernel": nn.Conv2d(6, 10, 5),
    "of rows and columns apart": nn.Conv2d(6, 10, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    "with padding": nn.Conv2d(6, 10, 3, padding=1),
    "with more padding than half of its kernel": nn.Conv2d(6, 10, 3, padding=3),
    "with strides": nn.Conv2d(6, 10, 3, stride=2, padding=1),
    "with strides beyond its kernel": nn.Conv2d(6, 10, 1, stride=2),
    "with dilation": nn.Conv2d(6, 10, 3, padding=2, dilation=2),
    "in groups": nn.Conv2d(6, 9, 3, groups=3),
    "of each channel by itself": nn.Conv2d(6, 6, 7, padding=3, groups=6),
    "of each channel by itself into two": nn.Conv2d(6, 12, 3, groups=6),
    "without bias": nn.Conv2d(6, 10, 3, bias=False),
    "to the same size by unequal padding": nn.Conv2d(6, 10, (2, 4), padding="same"),
}
OF_SIGNALS = [
    (nn.Conv1d(6, 9, 3, stride=2, padding=1), CONV2D),
    (nn.Conv1d(6, 12, 5, dilation=2, groups=3), CONV2D),
    (nn.Conv1d(6, 6, 4, padding="same", groups=6), CONV2D),
    (nn.ConvTranspose1d(6, 9, 3, 2, 1, output_padding=1), CONV_TRANSPOSE2D),
]
TRANSPOSED = {
    "of a larger kernel": nn.ConvTranspose2d(6, 10, 4),
    "that doubles an image": nn.ConvTranspose2d(6, 10, 2, stride=2),
    "with padding on one side of the result": nn.ConvTranspose2d(6, 10, 3, 2, 1, output_padding=1),
    "of rows and columns apart": nn.ConvTranspose2d(6, 10, (3, 2), (2, 1), (1, 0)),
    "with dilation": nn.ConvTranspose2d(6, 10, 3, dilation=2),
    "in groups": nn.ConvTranspose2d(6, 9, 3, 2, groups=3),
    "without bias": nn.ConvTranspose2d(6, 10, 3, bias=False),
}
MAXIMA = {
    "touching windows": (lambda x: F.max_pool2d(x, 2), MAX_POOL2D),
    "overlapping windows": (lambda x: F.max_pool2d(x, 3, 2, 1), MAX_POOL2D),
    "rows and columns apart": (lambda x: F.max_pool2d(x, (2, 3), (1, 2), (1, 0)), MAX_POOL2D),
    "windows that leave the image": (lambda x: F.max_pool2d(x, 2, ceil_mode=True), MAX_POOL2D),
    "dilation": (lambda x: F.max_pool2d(x, 3, 1, 1, dilation=2), MAX_POOL2D),
    "the whole image": (lambda x: F.max_pool2d(x, (9, 11)), "max_pool2d"),
    "no batch": (lambda x: F.max_pool2d(x[0], 2), MAX_POOL2D),
    "a size that divides": (lambda x: F.adaptive_max_pool2d(x, (3, 1)), MAX_POOL2D),
    "windows of different sizes": (lambda x: F.adaptive_max_pool2d(x, (2, 7)), SPREAD),
    "windows of different sizes, no batch": (lambda x: F.adaptive_max_pool2d(x[0], (13, 4)), SPREAD),
    "a signal": (lambda x: F.max_pool1d(x[0], 3, 2, 1), MAX_POOL2D),
    "a signal without a batch": (lambda x: F.max_pool1d(x[0, 0], 2), "max_pool2d"),
}
MEANS = {
    "touching windows": (lambda x: F.avg_pool2d(x, 2), AVG_POOL2D),
    "overlapping windows": (lambda x: F.avg_pool2d(x, 3, 2, 1), AVG_POOL2D),
    "rows and columns apart": (lambda x: F.avg_pool2d(x, (2, 3), (1, 2), (1, 0)), AVG_POOL2D),
    "windows that leave the image": (lambda x: F.avg_pool2d(x, 2, ceil_mode=True), AVG_POOL2D),
    "padding not counted": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), AVG_POOL2D),
    "leaving the image, padding not counted": (lambda x: F.avg_pool2d(x, 3, 2, 1, True, False), AVG_POOL2D),
    "leaving the image, padding counted": (lambda x: F.avg_pool2d(x, 4, 3, 2, True), AVG_POOL2D),
    "a divisor of its own": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), AVG_POOL2D),
    "no batch": (lambda x: F.avg_pool2d(x[0], 2), AVG_POOL2D),
    "a size that divides": (lambda x: F.adaptive_avg_pool2d(x, (3, 1)), AVG_POOL2D),
    "a signal": (lambda x: F.avg_pool1d(x[0], 3, 2, 1), AVG_POOL2D),
}
# of windows of different sizes: products with a matrix
ADAPTIVE = {(2, 7): "matmul matmul", (4, 11): "matmul transpose", (13, 3): "matmul matmul"}
INDEXED = {
    "of a pool": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "alone": lambda x: F.max_pool2d(x, 2, return_indices=True)[1],
    "of an adaptive pool": lambda x: F.adaptive_max_pool2d(x, (3, 11), return_indices=True),
}
PICKED = [
    {"size": (5, 20)}, {"size": (4, 4)}, {"scale_factor": 1.5}, {"scale_factor": 0.4},
    {"scale_factor": 1.7, "recompute_scale_factor": True}, {"size": (18, 20)},
]  # fmt: skip
WEIGHED = [
    {"scale_factor": 2, "mode": "bilinear"},
    {"size": (5, 20), "mode": "bilinear"},
    {"size": (5, 20), "mode": "bilinear", "align_corners": True},
    {"size": (1, 1), "mode": "bilinear", "align_corners": True},
    {"scale_factor": 1.7, "mode": "bilinear"},
    {"scale_factor": 1.7, "mode": "bilinear", "recompute_scale_factor": True},
    {"scale_factor": (1.5, 0.5), "mode": "bilinear"},
    {"size": (4, 5), "mode": "bilinear", "antialias": True},
    {"scale_factor": 2, "mode": "bicubic"},
    {"size": (5, 20), "mode": "bicubic", "align_corners": True},
    {"size": (4, 5), "mode": "bicubic", "antialias": True},
]
REPEATED = "reshape upsample reshape"


def convolved(name: str, layer: nn.Module, x: torch.Tensor, calls: str, **options: Any) -> Row:
    return Row(f"convolution: {name}", rounded(layer), x, calls, **{"cancels": True, **options})


def resized(name: str, calls: str, x: torch.Tensor = IMAGE, roundings: int = 0, **options: Any) -> Row:
    function = bind(F.interpolate, **options)
    return Row(f"upsample: {name}", function, x, calls, roundings=roundings, cancels=roundings > 1)


def _patches(channels: int, patch: Any, *size: int, batch: int = 1, bias: bool = True) -> Row:
    """A patch embedding: a move of patches and one linear. The host moves rows of 8 pixels and more."""
    layer = rounded(nn.Conv2d(channels, 10, patch, patch, bias=bias))
    width = layer.kernel_size[1]
    moves = "fold reshape to_layout" if channels >= width else ""
    name = f"convolution: patches of {patch}, {channels} channels, {size}, bias={bias}"
    return Row(
        name,
        lambda x: layer(x).flatten(2).transpose(1, 2),
        random(batch, channels, *size),
        f"{moves} linear".strip(),
    )


def _stem(kernel: int, stride: int, padding: int) -> Row:
    """The first convolution of many images, which reads squares of pixels."""
    layer = rounded(nn.Conv2d(3, 8, kernel, stride, padding))
    calls = "to_memory_config fold reshape conv2d"
    return convolved(f"of squares of {stride}, kernel {kernel}", layer, random(32, 3, 16, 16), calls)


def _volumes(x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    return layer(x).flatten(2).transpose(1, 2)


class _Embeddings(nn.Module):
    """A class token before the patches of an image, and their positions."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(3, 32, 8, 8)
        self.token, self.position = nn.Parameter(random(1, 1, 32)), nn.Parameter(random(1, 7, 32))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.project(image).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(image.shape[0], -1, -1), patches], 1) + self.position


ROWS = [
    *(convolved(name, layer, IMAGE, CONV2D) for name, layer in CONVOLUTIONS.items()),
    convolved("of one pixel", nn.Conv2d(6, 10, 1), IMAGE, "conv2d"),
    convolved("that fills its image", nn.Conv2d(6, 10, (9, 11)), IMAGE, "conv2d"),
    *(
        convolved(f"of {channels} channels", nn.Conv2d(channels, channels + 1, 3), random(2, channels, 9, 11), CONV2D)
        for channels in (1, 3, 16, 65)
    ),
    *(convolved(f"of a signal {layer}", layer, SIGNAL, calls) for layer, calls in OF_SIGNALS),
    *(
        convolved(f"transposed, {name}", layer, IMAGE, CONV_TRANSPOSE2D)
        for name, layer in TRANSPOSED.items()
    ),
    convolved("without a batch", nn.Conv2d(6, 10, 3), IMAGE[0], CONV2D),
    *(
        convolved(f"of {dtype}", nn.Conv2d(6, 10, 3).to(dtype), IMAGE.to(dtype), CONV2D, roundings=2)
        for dtype in HALVES
    ),
    convolved("channels last", nn.Conv2d(6, 10, 3), IMAGE.to(memory_format=torch.channels_last), CONV2D),
    Row("convolution: weights that are inputs", F.conv2d, (IMAGE, random(10, 6, 3, 3), random(10)),
        "prepare_conv_weights prepare_conv_bias conv2d", cancels=True),
    Row("convolution: weights that are moved", lambda x, w, b: F.conv1d(x, w.mT, b),
        (SIGNAL, random(10, 3, 6), random(10)), "prepare_conv_weights prepare_conv_bias conv2d", cancels=True),
    convolved("of float64", nn.Conv2d(6, 10, 3).double(), IMAGE.double(), "", reasons=("float64",), roundings=2),
    convolved("of many groups", nn.Conv2d(4160, 4160, 1, groups=4160), random(2, 4160, 2, 2), "",
        reasons=("49793",), roundings=2),
    Row("convolution: integers", F.conv2d, ((IMAGE * 1e6).long(), (random(4, 6, 3, 3) * 1e3).long()), ""),
    *(
        _patches(channels, patch, 3 * height, 2 * width, batch=2)
        for patch, (height, width) in {
            **{size: (size, size) for size in (4, 7, 8, 14, 16, 32)}, (2, 8): (2, 8), (16, 4): (16, 4)
        }.items()
        for channels in (1, 3, 4)
    ),
    *(_patches(3, 16, *size) for size in [(49, 32), (48, 47), (33, 40)]),
    _patches(3, 8, 16, 16, bias=False),
    *(
        Row(
            f"convolution: patches of volumes, {kernel}, {channels} channels",
            bind(_volumes, rounded(nn.Conv3d(channels, 10, kernel, kernel))),
            random(2, channels, *(2 * length for length in kernel)),
            "linear" if kernel[-1] >= 8 else "permute reshape to_layout linear",
        )
        for kernel in [(2, 4, 8), (2, 14, 14), (1, 2, 2)]
        for channels in (3, 16)
    ),
    Row("convolution: patches that are whole volumes", bind(_volumes, rounded(nn.Conv3d(3, 10, (2, 6, 6), (2, 6, 6)))),
        random(40, 3, 2, 6, 6), "linear"),
    *(_stem(*sizes) for sizes in [(7, 2, 3), (3, 2, 1), (5, 4, 2), (4, 2, 1)]),
    Row("convolution: patches as an image", rounded(nn.Conv2d(3, 10, 8, 8)), random(2, 3, 24, 16),
        "linear"),
    Row("convolution: patches after a class token", rounded(_Embeddings()), random(2, 3, 24, 16),
        "pad to_layout linear add", roundings=2, cancels=True),
    *(Row(f"max_pool2d: {name}", pool, IMAGE, calls, roundings=0) for name, (pool, calls) in MAXIMA.items()),
    *(Row(f"avg_pool2d: {name}", pool, IMAGE, calls, cancels=True) for name, (pool, calls) in MEANS.items()),
    *(
        Row(f"max_pool2d: {channels} channels", bind(F.max_pool2d, 2), random(2, channels, 8, 8), calls, roundings=0)
        for channels, calls in {1: "max_pool2d", 32: MAX_POOL2D, 65: MAX_POOL2D}.items()
    ),
    Row("max_pool2d: negatives", bind(F.max_pool2d, 3, 1, 1), -positive(2, 6, 9, 11), MAX_POOL2D, roundings=0),
    *(
        Row(f"max_pool2d: {dtype}", bind(F.max_pool2d, 2), IMAGE.to(dtype), MAX_POOL2D, roundings=0)
        for dtype in HALVES
    ),
    *(
        Row(f"_adaptive_avg_pool2d: {size}", bind(F.adaptive_avg_pool2d, size), IMAGE, calls, roundings=3,
            cancels=True)
        for size, calls in ADAPTIVE.items()
    ),
    Row("adaptive_avg_pool1d", bind(F.adaptive_avg_pool1d, 4), SIGNAL, "matmul", roundings=3, cancels=True),
    Row("_adaptive_avg_pool2d: a whole image", bind(F.adaptive_avg_pool2d, 1), IMAGE, "mean", roundings=2,
        cancels=True),
    *(
        Row(f"max_pool2d_with_indices: {name}", pool, IMAGE.round(), "", ("equal maxima",), roundings=2)
        for name, pool in INDEXED.items()
    ),
    Row("max_pool2d: integers", bind(F.max_pool2d, 2), (IMAGE * 1e7).long(), ""),
    *(
        resized(f"{mode} by {factor}", REPEATED, scale_factor=factor, mode=mode)
        for mode in ("nearest", "nearest-exact")
        for factor in (2, 3, (2, 3), (1, 4), 2.0)
    ),
    *(
        resized(f"{mode} {options}", "embedding", mode=mode, **options)
        for mode in ("nearest", "nearest-exact")
        for options in PICKED
    ),
    resized("infinities", "embedding", WITH_INFINITY, size=(5, 20)),
    resized("a signal to 7", "embedding", SIGNAL, size=7),
    resized("a signal to 60", "reshape upsample reshape", SIGNAL, size=60),
    resized("a volume", "embedding", IMAGE[None], size=(7, 3, 5)),
    *(resized(f"{options}", "matmul matmul", roundings=3, **options) for options in WEIGHED),
    resized("several tiles", "matmul matmul", random(2, 3, 40, 70), 3, scale_factor=2, mode="bilinear"),
    resized("rows alone", "matmul transpose", roundings=2, size=(5, 11), mode="bilinear"),
    resized("columns alone", "matmul", roundings=2, size=(9, 20), mode="bilinear"),
    resized("a signal, linear", "matmul", SIGNAL, 2, size=20, mode="linear"),
    resized("the same size", "reshape upsample reshape", IMAGE + 1, 1, size=(9, 11)),
    resized("the same size, bilinear", "", IMAGE + 1, 1, size=(9, 11), mode="bilinear"),
    *(
        resized(f"{mode} of {dtype}", calls, IMAGE.to(dtype), 4, scale_factor=2, mode=mode)
    for mode, calls in {"nearest": "reshape upsample reshape", "bilinear":
            "matmul matmul"}.items()
        for dtype in HALVES
    ),
    Row("upsample: area", bind(F.interpolate, size=(3, 11), mode="area"), IMAGE,
        AVG_POOL2D, cancels=True),
    Row("upsample: the module", nn.Upsample(scale_factor=2), IMAGE, REPEATED, roundings=0),
    Row("upsample: the name of the operand", lambda x: F.interpolate(input=x, scale_factor=2), IMAGE, REPEATED,
        roundings=0),
]  # fmt: skip
