"""Inputs of a random graph, as Python: what `floats((3, 4), "normal", 7)` and its like give.

Every float is a number that bfloat16 represents, so that nothing is lost on the way to the device.
"""

from __future__ import annotations

import torch

LARGEST_INT32 = 2**31 - 1


def floats(shape: tuple[int, ...], kind: str = "normal", seed: int = 0, dtype: torch.dtype = torch.float32):
    """Floats: "normal"; "positive", at least 1/2; "wide", from 1e-4 to 1e4; "ties", few values and zeros of both signs;
    "special", with infinities and NaN."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator)
    if kind == "positive":
        x = x.abs() + 0.5
    elif kind == "wide":
        # float16 ends at 65504, which bfloat16 cannot tell from infinity
        x = x * 10.0 ** torch.randint(-4, 3 if dtype == torch.float16 else 5, shape, generator=generator)
    elif kind == "ties":
        x = (x * 2).round() / 2
    elif kind == "special":
        chosen = torch.randint(0, 12, shape, generator=generator)
        for number, value in enumerate((float("inf"), -float("inf"), float("nan"))):
            x = torch.where(chosen == number, value, x)
    return x.bfloat16().to(dtype)


def integers(shape: tuple[int, ...], low: int, high: int, seed: int = 0, dtype: torch.dtype = torch.int64):
    """Integers in [low, high)."""
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def booleans(shape: tuple[int, ...], seed: int = 0):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).bool()
