"""Rows and their numbers: what the passes that look rows up and write them share.

A row is what lies along the last dimension of a value; rows and elements are numbered through all dimensions before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, dtype_of, insert, shape_of

# What the device holds as bfloat16: integers keep to the host, where they are exact.
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.bool)
# Numbers of larger tensors are not worth their memory.
LIMIT = 1 << 24


def movable(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype in DTYPES and 0 < value.numel() <= LIMIT


def rows_of(numbers: torch.Tensor, width: int) -> torch.Tensor | None:
    """The number of the row that each row of `numbers` is, None where they are no whole rows of `width` elements."""
    if not numbers.dim() or numbers.shape[-1] != width:
        return None
    first = numbers[..., 0]
    whole = bool((first % width == 0).all()) and torch.equal(numbers, first.unsqueeze(-1) + torch.arange(width))
    return first // width if whole else None


def to_the_end(dim: int, rank: int) -> list[int]:
    return [d for d in range(rank) if d != dim] + [dim]


def from_the_end(x: Node, place: int, like: Node) -> Node:
    rank = len(shape_of(x))
    if place == rank - 1:
        return x
    order = [*range(place), rank - 1, *range(place, rank - 1)]
    return insert(x.graph, aten.permute.default, (x, order), like=like)


def literal(node: Node, numbers: torch.Tensor, name: str = "") -> Node:
    """A node that stands for `numbers`, at the graph's insertion point; those of one name are one constant."""
    root = node.graph.owning_module
    name = name or f"numbers_{len(root._buffers)}"
    held = numbers.clone(memory_format=torch.contiguous_format)
    root.register_buffer(name, held)
    found = node.graph.get_attr(name)
    found.meta["val"] = node.meta["val"].fake_mode.from_tensor(held, static_shapes=True)
    return found


def indices_of(node: Node) -> list[Any] | None:
    """What indexes each dimension of the operand: a tensor of integers, or None for all of it."""
    rank = len(shape_of(node.args[0]))
    if node.target in (aten.index_select.default, aten.index_copy.default):
        dim = node.args[1] % max(rank, 1)
        indices = [None] * dim + [node.args[2]]
    else:
        indices = list(node.args[1])
    tensors = [index for index in indices if index is not None]
    if not tensors or not rank or any(dtype_of(index) not in (torch.int64, torch.int32) for index in tensors):
        return None
    if node.target in (aten.index_select.default, aten.index_copy.default) and not shape_of(tensors[0]):
        return None
    return indices + [None] * (rank - len(indices))


def from_the_front(node: Node, indices: list[Any]) -> list[Any]:
    """The indices, checked to count from the front alone where the operation wants that."""
    if node.target not in (aten.index_select.default, aten.index_copy.default):
        return indices
    pairs = zip(indices, shape_of(node.args[0]), strict=True)
    return [index and insert(node.graph, operators.bounded, (index, size), like=node) for index, size in pairs]


def kept_dimension(indices: Sequence[Any], shape: tuple[int, ...]) -> int | None:
    """The dimension to read whole: the last where it is not indexed, else the largest that is not."""
    free = [dim for dim, index in enumerate(indices) if index is None and shape[dim] > 1]
    if len(shape) - 1 in free or not free:
        return free[-1] if free else None
    return max(free, key=lambda dim: shape[dim])


def place_of(dim: int, indices: Sequence[Any]) -> int:
    """Where a dimension that is not indexed lies in x[indices]."""
    indexed = [d for d, index in enumerate(indices) if index is not None]
    rank = max(len(shape_of(index)) for index in indices if index is not None)
    before = sum(d not in indexed for d in range(dim))
    adjacent = indexed[-1] - indexed[0] + 1 == len(indexed)
    return before + (rank if not adjacent or dim > indexed[0] else 0)


def rank_of(indices: Sequence[Any]) -> int:
    """The rank of x[indices]."""
    tensors = [index for index in indices if index is not None]
    return len(indices) - len(tensors) + max(len(shape_of(index)) for index in tensors)


def with_last(x: Node, dim: int, like: Node) -> Node:
    """x with `dim` at the end."""
    rank = len(shape_of(x))
    return x if dim == rank - 1 else insert(x.graph, aten.permute.default, (x, to_the_end(dim, rank)), like=like)
