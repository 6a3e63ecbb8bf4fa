"""Hold what the emulated device computed against torch."""

from typing import Any

import torch


def check(found: Any, expected: torch.Tensor) -> None:
    """`found`, on the device, is `expected` rounded once."""
    assert tuple(found.shape) == tuple(expected.shape)
    torch.testing.assert_close(found.value.float(), expected.float(), rtol=1 / 256, atol=1e-6)
    if found.dtype.name == "BFLOAT16":
        assert torch.equal(found.value, found.value.bfloat16().float()), "a value that the device dtype can't hold"


def packed_on_device(x: torch.Tensor, dtype: str) -> torch.Tensor:
    """Results in block floats as the packers of the device write them, 16 neighbours at a time.

    To bfloat16; to 7 bits of the largest exponent, halves away from zero; of those, bfloat4_b the first 3.
    Source: https://github.com/tenstorrent/tt-isa-documentation, Packers/FormatConversion.md of Wormhole.
    """
    packed = torch.zeros(x.shape, dtype=torch.float64)
    for first in range(0, x.shape[-1], 16):
        block = x[..., first : first + 16].bfloat16().double()
        exponent = torch.frexp(block.abs().amax(-1, keepdim=True))[1]
        magnitude = torch.ldexp(block.abs(), 7 - exponent).add(0.5).to(torch.int64).clamp(max=127)
        if dtype == "bfloat4_b":
            magnitude = magnitude >> 4 << 4
        packed[..., first : first + 16] = torch.ldexp(magnitude.double(), exponent - 7) * block.sign()
    return packed.float()
