"""References of reductions whose TTNN golden function is wrong for how we call it."""

from typing import Any

import torch
from torch import Tensor

from .references import reference


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
