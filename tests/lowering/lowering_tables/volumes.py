"""Convolutions, pools and resizing of volumes, images read between their pixels, and transforms that are products."""

import torch
import torch.nn.functional as F
from compiled import random, rounded
from torch import nn

from .row import Row, bind

VOLUME = random(2, 6, 4, 5, 7)
CONV3D, CONV2D, MAX_POOL2D, AVG_POOL2D = (
    "reshape pad experimental.conv3d reshape slice", "conv2d", "max_pool2d", "avg_pool2d",
)  # fmt: skip
WHOLE_TILES, BOXES = "reshape pad experimental.conv3d reshape", "to_layout reshape permute reshape"
TWO = {
    calls: calls.replace(name, f"{name} {name}")
    for calls, name in ((MAX_POOL2D, "max_pool2d"), (AVG_POOL2D, "avg_pool2d"))
}

CONVOLUTIONS = {
    "of all dimensions": (nn.Conv3d(6, 10, 3, padding=1), CONV3D),
    "of dimensions apart": (nn.Conv3d(6, 10, (2, 3, 1), (2, 1, 2), (1, 0, 2), (1, 2, 1)), CONV3D),
    "of whole tiles of channels": (nn.Conv3d(6, 32, 2, bias=False), WHOLE_TILES),
    "in groups": (nn.Conv3d(6, 32, 2, groups=2), WHOLE_TILES),
    "of each frame": (nn.Conv3d(6, 10, (1, 3, 3), (1, 2, 1), (0, 1, 2)), CONV2D),
    "of frames alone": (nn.Conv3d(6, 10, (3, 1, 1), (2, 1, 1), (1, 0, 0)), CONV2D),
    "of each voxel": (nn.Conv3d(6, 10, 1), "conv2d"),
    "of frames before, as of video": (
        nn.Sequential(nn.ZeroPad3d((1, 1, 1, 1, 2, 0)), nn.Conv3d(6, 10, 3)),
        CONV3D,
    ),
    "transposed": (nn.ConvTranspose3d(6, 10, 3, padding=1), CONV3D),
    "transposed, of boxes side by side": (
        nn.ConvTranspose3d(6, 8, 2, 2),
        f"conv2d {BOXES}",
    ),
    "transposed, twice as large": (nn.ConvTranspose3d(6, 4, 3, 2, 1, 1), f"{WHOLE_TILES} {BOXES}"),
    "transposed, less than whole boxes": (
        nn.ConvTranspose3d(6, 4, 3, 2, 1),
        f"{WHOLE_TILES} {BOXES} slice slice slice",
    ),
    "transposed, of dimensions apart": (
        nn.ConvTranspose3d(6, 10, (2, 3, 4), (1, 2, 3), (0, 1, 2), (0, 1, 1)),
        f"{WHOLE_TILES} slice {BOXES} slice",
    ),
    "of frames alone before": (nn.Sequential(nn.ZeroPad3d((0, 0, 0, 0, 2, 0)), nn.Conv3d(6, 10, (3, 1, 1))), CONV2D),
}
POOLS = {
    "max_pool3d_with_indices: touching windows": (nn.MaxPool3d(2), TWO[MAX_POOL2D]),
    "max_pool3d_with_indices: windows that leave": (nn.MaxPool3d((2, 3, 2), 2, 1, ceil_mode=True), TWO[MAX_POOL2D]),
    "max_pool3d_with_indices: dilation": (nn.MaxPool3d(2, 1, dilation=(3, 2, 1)), TWO[MAX_POOL2D]),
    "max_pool3d_with_indices: of each frame": (nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)), MAX_POOL2D),
    "max_pool3d_with_indices: of frames": (nn.MaxPool3d((2, 1, 1)), MAX_POOL2D),
    "max_pool3d_with_indices: no batch": (lambda x: F.max_pool3d(x[0], 2), TWO[MAX_POOL2D]),
    "adaptive_max_pool3d": (nn.AdaptiveMaxPool3d((2, 5, 1)), TWO[MAX_POOL2D]),
    "avg_pool3d: touching windows": (nn.AvgPool3d(2), TWO[AVG_POOL2D]),
    "avg_pool3d: padding not counted": (nn.AvgPool3d(3, 2, 1, True, False), TWO[AVG_POOL2D]),
    "avg_pool3d: a divisor of its own": (nn.AvgPool3d(2, divisor_override=3), TWO[AVG_POOL2D]),
    "_adaptive_avg_pool3d": (nn.AdaptiveAvgPool3d((2, 5, 1)), TWO[AVG_POOL2D]),
    "_adaptive_avg_pool3d: all": (nn.AdaptiveAvgPool3d(1), "mean"),
    "_adaptive_avg_pool3d: windows that differ": (
        nn.AdaptiveAvgPool3d((3, 2, 7)),
        "matmul transpose reshape matmul transpose",
    ),
}
STAYING = {
    "max_pool3d_with_indices: and where": (nn.MaxPool3d(2, return_indices=True), "indices"),
    "adaptive_max_pool3d: windows that differ": (nn.AdaptiveMaxPool3d((3, 2, 7)), "windows that differ"),
    "convolution: of a volume in groups that fill no tiles": (rounded(nn.Conv3d(6, 10, 2, groups=2)), "3 dimensions"),
    "convolution: of a volume, transposed in groups": (rounded(nn.ConvTranspose3d(6, 10, 2, groups=2)), "3 dimensions"),
    "convolution: of volumes, transposed with gaps": (
        rounded(nn.ConvTranspose3d(6, 10, 2, dilation=2)),
        "3 dimensions",
    ),
}
IMAGE, GRID = random(2, 32, 9, 11), random(2, 4, 5, 2).float().clamp(-1.2, 1.2)
WIDE, POSITIONS = random(1, 32, 4, 500), torch.rand(1, 3, 40, 2, generator=torch.Generator().manual_seed(0))
SHIFTS = random(1, 3, 40, 2)
ONE_CHANNEL = (
    "reshape permute slice to_layout multiply add subtract abs rsub relu typecast slice to_layout multiply add "
    "subtract abs rsub relu typecast reshape to_layout matmul multiply sum to_layout reshape"
)
SAMPLED = "reshape grid_sample reshape"
PADDED = SAMPLED.replace("grid_sample", "pad grid_sample slice")
OTHERS = {
    "the nearest pixel": {"mode": "nearest"},
    "cubic": {"mode": "bicubic"},
    "a border that goes on": {"padding_mode": "border"},
    "a border that mirrors": {"padding_mode": "reflection"},
}


def shifted(image: torch.Tensor, positions: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """As deformable attention moves its references by offsets in pixels."""
    return F.grid_sample(image, (positions + shifts * 2 / torch.tensor([500.0, 4.0])) * 2 - 1, align_corners=False)


ROWS = [
    *(
        Row(f"convolution: of a volume, {name}", rounded(layer), VOLUME, calls, cancels=True)
        for name, (layer, calls) in CONVOLUTIONS.items()
    ),
    *(
        Row(name, pool, VOLUME, calls, roundings=0 if "max" in name else 3, cancels="avg" in name)
        for name, (pool, calls) in POOLS.items()
    ),
    *(Row(name, layer, VOLUME.round(), reasons=(reason,), roundings=2) for name, (layer, reason) in STAYING.items()),
    Row("upsample_trilinear3d", nn.Upsample(scale_factor=2, mode="trilinear"), VOLUME,
        "matmul matmul reshape matmul transpose", roundings=3, cancels=True),
    *(
        Row(f"grid_sampler_2d: {channels} channels, corners {corners}", bind(F.grid_sample, align_corners=corners),
            (IMAGE[:, :channels].contiguous(), GRID), calls, roundings=3, cancels=True)
        for corners in (False, True)
        for channels, calls in {32: SAMPLED, 20: PADDED, 1: ONE_CHANNEL}.items()
    ),
    Row("grid_sampler_2d: positions of float32 on the device", shifted, (WIDE, POSITIONS, SHIFTS),
        f"multiply divide add multiply subtract to_layout {SAMPLED}", cancels=True),
    *(
        Row(f"grid_sampler_2d: {name}", bind(F.grid_sample, align_corners=True, **options), (IMAGE, GRID), "",
            ("bilinear, with zeros around",), roundings=2)
        for name, options in OTHERS.items()
    ),
    Row("_fft_c2c: the real part", lambda x: torch.fft.fftn(x.relu(), dim=(1, 2)).real, random(2, 5, 6),
        "relu matmul matmul matmul matmul subtract", roundings=4, cancels=True),
    Row("_fft_c2c: the imaginary part", lambda x: torch.fft.fftn(x.relu(), dim=(1, 2), norm="ortho").imag,
        random(2, 5, 6), "relu matmul matmul matmul matmul add neg", roundings=4, cancels=True),
    Row("_fft_r2c", lambda x: torch.view_as_real(torch.fft.rfft(x.relu())), random(2, 5, 6),
        "relu matmul matmul neg reshape reshape concat", roundings=3, cancels=True),
]  # fmt: skip
