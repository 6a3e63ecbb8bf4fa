"""What each chip of a mesh holds of a value: cut to parts, and put together again, in torch on the host."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TypeVar

import torch

T = TypeVar("T")
Mesh = tuple[int, ...]  # chips along each axis: rows, columns
# For each axis of a mesh the dimension that is cut along it, None where every chip along it holds the same.
Placement = tuple[int | None, ...]

_place: ContextVar[tuple[int, ...] | None] = ContextVar("place of a chip on its mesh", default=None)


def places(mesh: Sequence[int]) -> list[tuple[int, ...]]:
    """Where the chips of a mesh lie, row by row, as TTNN numbers them."""
    return [tuple(map(int, place)) for place in torch.cartesian_prod(*map(torch.arange, mesh)).reshape(-1, len(mesh))]


@contextlib.contextmanager
def on_chip(place: tuple[int, ...]) -> Iterator[None]:
    """What a graph computes inside, it computes for the chip at that place of a mesh."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


def own_part(x: torch.Tensor, dim: int, axis: int, chips: int) -> torch.Tensor:
    """The part of x that falls to the chip of `on_chip`. Raises RuntimeError outside of it."""
    place = _place.get()
    if place is None:
        raise RuntimeError("a part of a value belongs to one chip of a mesh; compute it under `on_chip`")
    return x.chunk(chips, dim)[place[axis]].clone()  # no operator of torch's may give a view


def part_of(x: torch.Tensor, placement: Placement, mesh: Sequence[int], place: Sequence[int]) -> torch.Tensor:
    """What the chip at a place of a mesh holds of a whole value."""
    for dim, chips, at in zip(placement, mesh, place, strict=True):
        if dim is not None:
            x = x.chunk(chips, dim)[at]
    return x


def whole_shape(shape: Sequence[int], placement: Placement, mesh: Sequence[int]) -> tuple[int, ...]:
    """The shape of a value of which each chip holds a part of `shape`; with the placement () each has all of it."""
    sizes = list(shape)
    for dim, chips in zip(placement, mesh, strict=False):
        if dim is not None:
            sizes[dim] *= chips
    return tuple(sizes)


def joined(parts: Sequence[torch.Tensor], placement: Placement, mesh: Sequence[int]) -> torch.Tensor:
    """The whole value of what the chips hold, row by row."""
    return together([parts[chip] for chip in chips_read(placement, mesh)], placement, mesh, torch.cat)


def together(read: list[T], placement: Placement, mesh: Sequence[int], cat: Callable[[list[T], int], T]) -> T:
    """The whole value of what the chips of `chips_read` hold, in their order. cat: joins along a dimension."""
    for dim, count in reversed(list(zip(placement, mesh, strict=True))):
        if dim is not None:
            read = [cat(read[start : start + count], dim) for start in range(0, len(read), count)]
    return read[0]


def chips_read(placement: Placement, mesh: Sequence[int]) -> list[int]:
    """The chips whose parts make the whole, one of those that hold the same."""
    needed = [
        place for place in places(mesh) if all(d is not None or at == 0 for d, at in zip(placement, place, strict=True))
    ]
    return [sum(at * math.prod(mesh[axis + 1 :]) for axis, at in enumerate(place)) for place in needed]
