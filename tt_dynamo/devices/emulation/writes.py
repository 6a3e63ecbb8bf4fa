"""What TTNN operations write into KV caches, the first of their tensors; the second is what they write.

A function here takes the arguments of the TTNN call with every tensor replaced by its value, as references do, and what
stands in the tile padding of the second, None where that is not known. It returns which elements of the cache become
what, and the caller rounds that to the dtype of the cache. So writing a row costs no more than the row, however long
the cache.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tt_dynamo.devices.errors import EmulationError

_TILE = 32
# Stands for padding that the device leaves undefined: finite, as it is there, and far from any value that belongs.
UNDEFINED_PADDING = 8192.0


def _check(name: str, first: int, count: int, cache: Tensor) -> None:
    """A device would write beyond the cache in silence, into other memory."""
    if first < 0 or first + count > cache.shape[-2]:
        raise EmulationError(
            f"{name} writes rows {first} to {first + count - 1} of a cache that has {cache.shape[-2]} rows"
        )


def fill_cache(
    cache_tensor: Tensor, input_tensor: Tensor, batch_idx: int, *, padding: float | None
) -> tuple[Any, Tensor]:
    """input [1, kv heads, seq, head_dim] into the first rows of cache [batch, kv heads, length, head_dim].

    TTNN copies whole tiles: what pads the last tile of the input is written too.
    """
    seq, length = input_tensor.shape[-2], cache_tensor.shape[-2]
    _check("ttnn.fill_cache", 0, seq, cache_tensor)
    filled = min(seq + -seq % _TILE, length)
    filling = UNDEFINED_PADDING if padding is None else padding
    rows = torch.nn.functional.pad(input_tensor[0], (0, 0, 0, filled - seq), value=filling)
    return (batch_idx, slice(None), slice(filled)), rows


def paged_update_cache(
    cache_tensor: Tensor, input_tensor: Tensor, *, update_idxs_tensor: Tensor, padding: float | None
) -> tuple[Any, Tensor]:
    """One token a user, input [1, batch, kv heads, head_dim], each into a row of its own.

    cache [batch, kv heads, length, head_dim]. A user at position -1 is skipped.
    """
    positions = update_idxs_tensor.reshape(-1)
    users = (positions >= 0).nonzero()[:, 0]
    _check("ttnn.experimental.paged_update_cache", max(0, *positions.tolist()), 1, cache_tensor)
    return (users, slice(None), positions[users]), input_tensor[0, users]


WRITES: dict[str, Callable[..., tuple[Any, Tensor]]] = {
    "ttnn.fill_cache": fill_cache,
    "ttnn.experimental.paged_update_cache": paged_update_cache,
    "ttnn.experimental.paged_fused_update_cache": paged_update_cache,  # for each of two caches
}
