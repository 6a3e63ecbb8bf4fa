"""Writes into KV caches."""

import torch
from torch.fx import Node

from tt_dynamo.ir.operators.definition import CACHE_WRITES, FUSED, define


def caches_of(node: Node) -> list[Node]:
    """The caches that one of CACHE_WRITES writes to."""
    names = (argument.name for argument in node.target._schema.arguments)
    return [operand for name, operand in zip(names, node.args, strict=False) if name.endswith("cache")]


@define("Tensor cache, Tensor x, Tensor positions", FUSED, CACHE_WRITES)
def update_cache(cache, x, positions):
    """cache [batch, heads, length, head_dim] with x [batch, heads, 1, head_dim] in row positions [1]."""
    return cache.index_copy(2, positions, x)


@define("Tensor cache, Tensor x, Tensor? written=None", FUSED, CACHE_WRITES)
def fill_cache(cache, x, written=None):
    """cache [batch, heads, length, head_dim] with x [batch, heads, seq, head_dim] in its first rows.

    written [1, 1, rows, 1]: which rows are those of x, up to the end of the tiles that x ends in; None where all are.
    """
    first, rest = cache.tensor_split([x.shape[2]], 2)
    x = x if written is None else torch.where(written[:, :, : x.shape[2]], x, first)
    return torch.cat([x, rest], 2)


@define("Tensor cache, Tensor x", FUSED)
def slide_cache(cache, x):
    """cache [batch, heads, length, head_dim] without its first row, and x [batch, heads, 1, head_dim] as its last."""
    return torch.cat([cache[:, :, 1:], x], 2)


@define("Tensor cache, Tensor x, Tensor positions", FUSED, CACHE_WRITES)
def update_cache_decode(cache, x, positions):
    """cache [batch, heads, length, head_dim] with x [1, batch, heads, head_dim] in row positions [batch]."""
    users = torch.arange(cache.shape[0])
    return cache.permute(0, 2, 1, 3).index_put([users, positions.long()], x[0]).permute(0, 2, 1, 3).contiguous()


@define(
    "Tensor key_cache, Tensor key, Tensor positions, Tensor value_cache, Tensor value",
    FUSED,
    CACHE_WRITES,
    gives="(Tensor, Tensor)",
)
def update_caches_decode(key_cache, key, positions, value_cache, value):
    """Both caches of an attention after `update_cache_decode`, each with its rows, at the same positions."""
    write = update_cache_decode.decompose
    return write(key_cache, key, positions), write(value_cache, value, positions)


@define("Tensor cache, Tensor x, Tensor rows, Tensor last", FUSED, CACHE_WRITES)
def slide_cache_decode(cache, x, rows, last):
    """cache [batch, heads, length, head_dim] with its rows [batch heads, length], numbered through all heads, in place
    of those it has, then x [1, batch, heads, head_dim] in row positions `last` [batch]."""
    moved = cache.reshape(-1, cache.shape[-1])[rows.long()].reshape(cache.shape)
    return update_cache_decode.decompose(moved, x, last)
