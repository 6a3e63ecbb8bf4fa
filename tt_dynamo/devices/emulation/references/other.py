"""References of rotary embedding, moves by index and spreads, whose TTNN golden is missing or wrong for our calls."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .elementwise import reference

REDUCTIONS = {"add": "sum", "multiply": "prod"}


# TTNN has no golden.
@reference("ttnn.experimental.rotary_embedding_hf")
def rotary_embedding_hf(
    input_tensor: Tensor, cos_cache: Tensor, sin_cache: Tensor, *, is_decode_mode: bool = False, **_: Any
) -> Tensor:
    """Su et al. 2021, https://arxiv.org/abs/2104.09864, pairing the halves of head_dim.

    Prefill: input [batch, heads, seq, head_dim], caches [1, 1, at least seq, head_dim]. Decode: input [1, batch, heads,
    head_dim], caches [1, batch, 1, head_dim].
    """
    if not is_decode_mode:
        cos_cache, sin_cache = (table[..., : input_tensor.shape[-2], :] for table in (cos_cache, sin_cache))
    first, second = input_tensor.chunk(2, dim=-1)
    return input_tensor * cos_cache + torch.cat((-second, first), dim=-1) * sin_cache


# TTNN has no golden.
@reference("ttnn.experimental.rotary_embedding_llama")
def rotary_embedding_llama(
    input_tensor: Tensor, cos_cache: Tensor, sin_cache: Tensor, trans_mat: Tensor, **_: Any
) -> Tensor:
    """The same where a matrix [1, 1, 32, 32] says which columns of each tile turn together.

    input [batch, heads, seq, head_dim], caches [1, 1, at least seq, head_dim]; the last tile is padded with zeros.
    """
    seq, head_dim = input_tensor.shape[-2:]
    size = trans_mat.shape[-1]
    tiles = functional.pad(input_tensor, (0, -head_dim % size)).unflatten(-1, (-1, size))
    turned = (tiles @ trans_mat).flatten(-2)[..., :head_dim]
    return input_tensor * cos_cache[..., :seq, :] + turned * sin_cache[..., :seq, :]


# TTNN's golden knows no reduction.
@reference("ttnn.scatter")
def scatter(input: Tensor, dim: int, index: Tensor, src: Tensor, *, reduce: str | None = None, **_: Any) -> Tensor:
    """Reductions begin with what the input holds and are carried out in float32."""
    if reduce is None:
        return input.scatter(dim, index.long(), src)
    return input.scatter_reduce(dim, index.long(), src, REDUCTIONS[reduce])


# TTNN's golden gives back a number of rank 0, whose variance the device knows to be 0, or NaN with the correction.
@reference("ttnn.var")
def var(
    input_tensor: Tensor,
    dim: int | tuple[int, ...] | None = None,
    keepdim: bool = False,
    *,
    correction: bool = True,
    compute_kernel_config: Any = None,
) -> Tensor:
    """Variance over `dim`; `correction` is 0 or 1."""
    dims = None if dim is None or not input_tensor.ndim else dim
    return torch.var(input_tensor, dim=dims, correction=int(correction), keepdim=keepdim)


# As above.
@reference("ttnn.std")
def std(input_tensor: Tensor, dim: Any = None, keepdim: bool = False, **options: Any) -> Tensor:
    """The root of the variance."""
    return var(input_tensor, dim, keepdim, **options).sqrt()
