"""Eager torch with every float that it computes rounded to bfloat16: what bfloat16 alone does to a function."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WIDER = (torch.float32, torch.float16)


class Rounded(TorchDispatchMode):
    """Rounds the results of every operation: to the nearest number, or with a seed to either neighbour at random.

    Numbers that bfloat16 represents stay as they are. Views and copies hold rounded numbers already.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor) and leaf.dtype in WIDER and leaf.numel():
                    self._round(leaf)
        return result

    def _round(self, x: torch.Tensor) -> None:
        rounded = x.bfloat16()
        if self._generator is not None:
            other = _next(rounded, away=rounded.to(x.dtype).abs() < x.abs())
            inexact = (rounded.to(x.dtype) != x) & x.isfinite() & other.isfinite()
            up = torch.rand(x.shape, generator=self._generator) < 0.5
            rounded = torch.where(inexact & up, other, rounded)
        largest = torch.finfo(torch.bfloat16).max
        rounded = torch.where(x.isfinite() & ~rounded.isfinite(), largest * rounded.sign(), rounded)
        if x.dtype == torch.float16 or not torch.equal(rounded.to(x.dtype), x):
            x.copy_(rounded)


def _next(x: torch.Tensor, away: torch.Tensor) -> torch.Tensor:
    """The neighbours of bfloat16 numbers: away from zero or towards it."""
    bits = x.view(torch.int16) + torch.where(away, 1, -1).to(torch.int16)
    return torch.where(x == 0, x, bits.view(torch.bfloat16))
