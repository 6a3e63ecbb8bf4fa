"""What TTNN operations write into the tensors that they are given, KV caches above all.

A function here takes the arguments of the TTNN call with every tensor replaced by its value, as references do, and
returns what is written where; the caller rounds that to the dtype of the tensor written to. So writing a row costs no
more than the row, however long the cache. One that names a parameter `padding` is also given what stands in the tile
padding of the tensor `input_tensor`, None where that is not known.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import Signature, signature
from typing import Any

import torch
from torch import Tensor

from tt_dynamo.devices.errors import EmulationError

_TILE = 32
# Stands for padding that the device leaves undefined: finite, as it is there, and far from any value that belongs.
UNDEFINED_PADDING = 8192.0


@dataclass(frozen=True)
class Write:
    """`value` goes to the elements at `index` of the argument named `into`."""

    into: str
    index: Any
    value: Tensor


@dataclass(frozen=True)
class Writing:
    compute: Callable[..., Iterator[Write]]
    signature: Signature
    takes_padding: bool


WRITES: dict[str, Writing] = {}


def writes(name: str) -> Callable[[Callable[..., Iterator[Write]]], Callable[..., Iterator[Write]]]:
    """Register what the operation of this fully qualified TTNN name writes."""

    def register(compute: Callable[..., Iterator[Write]]) -> Callable[..., Iterator[Write]]:
        named = signature(compute)
        WRITES[name] = Writing(compute, named, "padding" in named.parameters)
        return compute

    return register


def _refuse(name: str, options: dict[str, Any]) -> None:
    """Options that change what is written where, and whose meaning nothing here knows."""
    given = [option for option, value in options.items() if isinstance(value, Tensor) or value]
    if given:
        raise NotImplementedError(f"{name} with {given[0]}= is not supported on the emulated device")


def _check(name: str, first: int, count: int, cache: Tensor) -> None:
    """A device would write beyond the cache in silence, into other memory."""
    if first < 0 or first + count > cache.shape[-2]:
        raise EmulationError(
            f"{name} writes rows {first} to {first + count - 1} of a cache that has {cache.shape[-2]} rows"
        )


# --- prefill --------------------------------------------------------------------------------------------------------


def _whole_tiles(rows: Tensor, padding: float | None, limit: int) -> Tensor:
    """rows [..., seq, head_dim] with the padding of their last tile as rows of their own, at most `limit` in all."""
    added = min(-rows.shape[-2] % _TILE, limit - rows.shape[-2])
    filling = UNDEFINED_PADDING if padding is None else padding
    return torch.nn.functional.pad(rows, (0, 0, 0, added), value=filling) if added > 0 else rows


@writes("ttnn.fill_cache")
def fill_cache(
    cache_tensor: Tensor, input_tensor: Tensor, batch_idx: int, *, update_idx: int = 0, padding: float | None = None
) -> Iterator[Write]:
    """input [1, kv heads, seq, head_dim] into cache [batch, kv heads, length, head_dim] from row update_idx on.

    TTNN copies whole tiles: what pads the last tile of the input is written too.
    """
    _check("ttnn.fill_cache", update_idx, input_tensor.shape[-2], cache_tensor)
    rows = _whole_tiles(input_tensor[0], padding, cache_tensor.shape[-2] - update_idx)
    yield Write("cache_tensor", (batch_idx, slice(None), slice(update_idx, update_idx + rows.shape[-2])), rows)


@writes("ttnn.experimental.paged_fill_cache")
def paged_fill_cache(
    cache_tensor: Tensor,
    input_tensor: Tensor,
    page_table: Tensor,
    *,
    batch_idx_tensor: Tensor | None = None,
    batch_idx: int = 0,
    compute_kernel_config: Any = None,
    padding: float | None = None,
    **options: Any,
) -> Iterator[Write]:
    """input [users, kv heads, seq, head_dim] into the blocks of cache [blocks, kv heads, block size, head_dim].

    page_table [batch, blocks of a sequence] says which block of the cache holds which of a sequence, -1 for none. Tile
    padding is written as by fill_cache.
    """
    _refuse("ttnn.experimental.paged_fill_cache", options)
    users = [batch_idx] if batch_idx_tensor is None else batch_idx_tensor.reshape(-1).tolist()
    size, blocks = _block_size(cache_tensor, page_table), page_table.shape[-1]
    if input_tensor.shape[-2] > blocks * size:
        raise EmulationError(f"paged_fill_cache writes {input_tensor.shape[-2]} rows into {blocks} blocks of {size}")
    for user, tokens in zip(users, input_tensor, strict=True):
        tokens = _whole_tiles(tokens, padding, blocks * size)
        for block, rows in zip(page_table[user].tolist(), tokens.split(size, dim=-2), strict=False):
            if block >= 0:
                yield Write("cache_tensor", (block, slice(None), slice(0, rows.shape[-2])), rows)


def _block_size(cache: Tensor, page_table: Tensor) -> int:
    size = cache.shape[-2]
    if size % _TILE and page_table.shape[-1] > 1:
        raise NotImplementedError(
            f"blocks of {size} rows, not a multiple of 32, are not supported on the emulated device"
        )
    return size


# --- decode ---------------------------------------------------------------------------------------------------------


@writes("ttnn.update_cache")
def update_cache(
    cache: Tensor, input: Tensor, update_idx: int, *, batch_offset: int = 0, compute_kernel_config: Any = None
) -> Iterator[Write]:
    """One token a user, input [1, kv heads, users, head_dim], into row update_idx of the cache of each.

    Tokens from batch_offset on are those of the users of the cache.
    """
    _check("ttnn.update_cache", update_idx, 1, cache)
    tokens = input[0, :, batch_offset : batch_offset + cache.shape[0]].transpose(0, 1)
    if tokens.shape[0] != cache.shape[0]:
        raise EmulationError(
            f"ttnn.update_cache of {cache.shape[0]} users takes {tokens.shape[0]} tokens and undefined tile padding"
        )
    yield Write("cache", (slice(None), slice(None), update_idx), tokens)


@writes("ttnn.experimental.paged_update_cache")
def paged_update_cache(
    cache_tensor: Tensor,
    input_tensor: Tensor,
    *,
    update_idxs: Any = (),
    update_idxs_tensor: Tensor | None = None,
    page_table: Tensor | None = None,
    compute_kernel_config: Any = None,
    **options: Any,
) -> Iterator[Write]:
    """One token a user, input [1, batch, kv heads, head_dim], each into a row of its own.

    cache [batch, kv heads, length, head_dim], or with page_table [blocks, kv heads, block size, head_dim]. A user at
    position -1 is skipped.
    """
    _refuse("ttnn.experimental.paged_update_cache", options)
    yield from _update("cache_tensor", cache_tensor, input_tensor, update_idxs, update_idxs_tensor, page_table)


@writes("ttnn.experimental.paged_fused_update_cache")
def paged_fused_update_cache(
    cache_tensor1: Tensor,
    input_tensor1: Tensor,
    cache_tensor2: Tensor,
    input_tensor2: Tensor,
    *,
    update_idxs: Any = (),
    update_idxs_tensor: Tensor | None = None,
    page_table: Tensor | None = None,
    compute_kernel_config: Any = None,
    **options: Any,
) -> Iterator[Write]:
    """paged_update_cache of two caches at the same positions."""
    _refuse("ttnn.experimental.paged_fused_update_cache", options)
    yield from _update("cache_tensor1", cache_tensor1, input_tensor1, update_idxs, update_idxs_tensor, page_table)
    yield from _update("cache_tensor2", cache_tensor2, input_tensor2, update_idxs, update_idxs_tensor, page_table)


def _update(
    into: str, cache: Tensor, tokens: Tensor, listed: Any, tensor: Tensor | None, page_table: Tensor | None
) -> Iterator[Write]:
    positions = torch.as_tensor(listed, dtype=torch.int64) if tensor is None else tensor.reshape(-1)
    users = (positions >= 0).nonzero()[:, 0]
    if not len(users):
        return
    tokens, rows = tokens[0, users], positions[users]
    if page_table is not None:
        size = _block_size(cache, page_table)
        if int(rows.max()) >= page_table.shape[-1] * size:
            raise EmulationError(
                f"row {int(rows.max())} is beyond the {page_table.shape[-1]} blocks of {size} of a user"
            )
        users, rows = page_table[users, rows // size], rows % size
    _check("ttnn.experimental.paged_update_cache", int(rows.max()), 1, cache)
    yield Write(into, (users, slice(None), rows), tokens)


# --- whole tensors --------------------------------------------------------------------------------------------------


@writes("ttnn.plus_one")
def plus_one(input_tensor: Tensor, sub_core_grids: Any = None, skip_negative_entries: bool = False) -> Iterator[Write]:
    """Positions of the next token; with skip_negative_entries, those of users that are skipped stay negative."""
    largest = torch.iinfo(torch.int32).max
    counted = (input_tensor >= 0) & (input_tensor < largest) if skip_negative_entries else torch.ones_like(input_tensor)
    yield Write("input_tensor", ..., input_tensor + counted)


@writes("ttnn.copy")
def copy(input_a: Tensor, input_b: Tensor) -> Iterator[Write]:
    yield Write("input_b", ..., input_a)


@writes("ttnn.copy_host_to_device_tensor")
def copy_host_to_device_tensor(host_tensor: Tensor, device_tensor: Tensor, *_: Any, **__: Any) -> Iterator[Write]:
    yield Write("device_tensor", ..., host_tensor)


@writes("ttnn.copy_device_to_host_tensor")
def copy_device_to_host_tensor(device_tensor: Tensor, host_tensor: Tensor, *_: Any, **__: Any) -> Iterator[Write]:
    yield Write("host_tensor", ..., device_tensor)
