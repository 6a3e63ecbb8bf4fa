"""References of operations of language models, which have no golden in TTNN."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .elementwise import reference


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
