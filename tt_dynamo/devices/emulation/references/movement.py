"""References of moves by index."""

from typing import Any

from torch import Tensor

from .elementwise import reference

REDUCTIONS = {"add": "sum", "multiply": "prod"}


# TTNN's golden knows no reduction.
@reference("ttnn.scatter")
def scatter(input: Tensor, dim: int, index: Tensor, src: Tensor, *, reduce: str | None = None, **_: Any) -> Tensor:
    """Reductions begin with what the input holds and are carried out in float32."""
    if reduce is None:
        return input.scatter(dim, index.long(), src)
    return input.scatter_reduce(dim, index.long(), src, REDUCTIONS[reduce])
