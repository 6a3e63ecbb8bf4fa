"""References of reductions and scans whose TTNN golden function is wrong for how we call it, or too kind."""

from typing import Any

import torch
from torch import Tensor

from .elementwise import reference


# TTNN's golden gives back a number of rank 0, whose variance the device knows to be 0, or NaN with the correction.
@reference("ttnn.var")
def var(
    input_tensor: Tensor,
    dim: int | tuple[int, ...] | None = None,
    keepdim: bool = False,
    *,
    correction: bool = True,
    scalar: float = 1.0,
    **_: Any,
) -> Tensor:
    """Variance over `dim`, of the values times `scalar`; `correction` is 0 or 1."""
    dims = None if dim is None or not input_tensor.ndim else dim
    return torch.var(input_tensor, dim=dims, correction=int(correction), keepdim=keepdim) * scalar**2


# As above.
@reference("ttnn.std")
def std(input_tensor: Tensor, dim: Any = None, keepdim: bool = False, **options: Any) -> Tensor:
    """The root of the variance."""
    return var(input_tensor, dim, keepdim, **options).sqrt()


# TTNN's golden rounds once; its kernels keep the running value in the dtype of the result and round it at every step.
@reference("ttnn.cumsum")
def cumsum(input: Tensor, dim: int, *, reverse_order: bool = False, result: Any = None, **_: Any) -> Tensor:
    """Sums of the elements up to each along `dim`, or from each on."""
    return _scan(torch.cumsum, torch.add, input, dim, reverse_order, result)


# As above.
@reference("ttnn.cumprod")
def cumprod(input: Tensor, dim: int, *, reverse_order: bool = False, result: Any = None, **_: Any) -> Tensor:
    """Products of the elements up to each along `dim`, or from each on."""
    return _scan(torch.cumprod, torch.mul, input, dim, reverse_order, result)


def _scan(whole: Any, step: Any, input: Tensor, dim: int, reverse_order: bool, result: Any) -> Tensor:
    values = input.flip(dim) if reverse_order else input
    if result.dtype.name != "BFLOAT16" or not input.ndim:
        scanned = whole(values, dim)
    else:
        running = list(values.unbind(dim))
        for index in range(1, len(running)):
            running[index] = step(running[index - 1], running[index]).bfloat16().float()
        scanned = torch.stack(running, dim)
    return scanned.flip(dim) if reverse_order else scanned
