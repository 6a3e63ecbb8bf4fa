"""Convolutions of flattened volumes: fused node → TTNN calls."""

import itertools
import math

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.spec import TILE, on_device
from tt_dynamo.lowering.registry import TTNN, Need, Tensor, lower

CHANNELS = 16  # of which TTNN's kernel takes a multiple at once: a read of L1 is as many bytes
BLOCKS = ("C_in_block", "C_out_block", "T_out_block", "H_out_block", "W_out_block")


@lower(operators.conv3d, gives="ROW_MAJOR", x=Need("ROW_MAJOR"), weight=Need("HOST"))
def conv3d(ttnn: TTNN, x: Tensor, weight, bias, volume, stride, padding, dilation, groups, activation=""):
    """x [1, 1, batch * frames * height * width, in] → [1, 1, batch * new frames * … * new width, out]."""
    if on_device(getattr(weight, "tensor", weight)):
        raise Unsupported("TTNN prepares the weights of a convolution on the host, and the device computes these")
    out, _, *kernel = weight.shape
    x, padding = _padded(ttnn, ttnn.reshape(x, (*volume, x.shape[-1])), padding)
    batch, *size, channels = x.shape
    new = [
        (length + 2 * zeros - gap * (taps - 1) - 1) // step + 1
        for length, zeros, gap, taps, step in zip(size, padding, dilation, kernel, stride, strict=True)
    ]

    def convolve(way):
        blocks = dict(zip(BLOCKS, way, strict=True))
        config = ttnn.Conv3dConfig(
            **blocks, alignment=CHANNELS, compute_with_storage_grid_size=ttnn.CoreCoord(*ttnn.settings.grid_size)
        )
        prepared = ttnn.experimental.prepare_conv3d_weights(
            weight_tensor=weight, groups=groups, C_in_block=way[0], alignment=CHANNELS, device=ttnn.settings.device
        )
        return ttnn.experimental.conv3d(
            input_tensor=x,
            weight_tensor=ttnn.to_layout(prepared, ttnn.TILE_LAYOUT),
            bias_tensor=bias,
            config=config,
            dtype=ttnn.bfloat16,
            output_channels=out,
            kernel_size=tuple(kernel),
            stride=tuple(stride),
            padding=tuple(padding),
            dilation=tuple(dilation),
            groups=groups,
            compute_kernel_config=ttnn.settings.weight_kernel_config,
        )

    asked = ("conv3d", x, weight, bias, stride, padding, dilation, groups)
    ways = candidates(channels, out, batch, new, math.prod(ttnn.settings.grid_size))
    y = ttnn.reshape(ttnn.choose(asked, ways, convolve), (1, 1, batch * math.prod(new), out))
    return getattr(ttnn, activation)(y) if activation else y


def candidates(channels: int, out: int, batch: int, size: list[int], cores: int) -> list[tuple[int, ...]]:
    """Blocks of channels in and out, frames, rows and columns that a core takes at once.

    Those first of which the busiest core multiplies least: TTNN refuses the ones for which a core has no room. A block
    of pixels fills a tile's rows, in as compact a box as there is.
    """
    box = [1, 1, 1]
    while math.prod(box) < TILE and any(part < length for part, length in zip(box, size, strict=True)):
        box[min((part, -dim) for dim, part in enumerate(box) if part < size[dim])[1] * -1] *= 2
    counts = batch * math.prod(math.ceil(length / part) for length, part in zip(size, box, strict=True))
    padded = math.ceil(out / TILE) * TILE

    def multiplications(way: tuple[int, ...]) -> tuple[int, int]:
        blocks = counts * (channels // way[0]) * (padded // way[1])
        return math.ceil(blocks / cores) * way[0] * way[1], channels // way[0]

    ways = itertools.product(_parts(channels, CHANNELS), _parts(padded, TILE), *([part] for part in box))
    return sorted(ways, key=multiplications)


def _parts(whole: int, unit: int) -> list[int]:
    """What divides `whole` evenly, in whole units."""
    return [size for size in range(whole, 0, -unit) if whole % size == 0]


def _padded(ttnn: TTNN, x: Tensor, padding):
    """x [batch, frames, height, width, channels] with channels that the kernel takes, and the padding left for it."""
    before, after = padding[::2], padding[1::2]
    own = [0 if first != last else first for first, last in zip(before, after, strict=True)]
    sides = [(first - zeros, last - zeros) for first, last, zeros in zip(before, after, own, strict=True)]
    more = -x.shape[-1] % CHANNELS
    if more or any(map(any, sides)):
        x = ttnn.pad(x, [(0, 0), *sides, (0, more)], 0.0)
    return x, own
