"""Where a value of a whole graph lies on a mesh."""

from collections.abc import Sequence

from tt_dynamo.ir.parts import Placement as Placement


class Unruled(Exception):
    """A rule does not cover a call."""


def replicated(mesh: Sequence[int]) -> Placement:
    return (None,) * len(mesh)


def is_cut(placement: Placement) -> bool:
    return any(dim is not None for dim in placement)


def pieces(placement: Placement, mesh: Sequence[int], dim: int) -> int:
    """Into how many parts a dimension is cut."""
    count = 1
    for cut, chips in zip(placement, mesh, strict=True):
        count *= chips if cut == dim else 1
    return count


def local_shape(shape: Sequence[int], placement: Placement, mesh: Sequence[int]) -> tuple[int, ...]:
    """The shape of what one chip holds of a value of `shape`, the last parts filled up where it does not divide."""
    return tuple(-(-size // pieces(placement, mesh, dim)) for dim, size in enumerate(shape))


def divides(shape: Sequence[int], placement: Placement, mesh: Sequence[int], batch: int = 0) -> bool:
    """Whether every chip's part of a value of `shape` is as large.

    batch: a size that need not divide, since it is filled up.
    """
    cuts = [dim for dim in placement if dim is not None]
    return all(
        dim < len(shape) and (shape[dim] == batch or shape[dim] % pieces(placement, mesh, dim) == 0) for dim in cuts
    )


def moved(placement: Placement, to: dict[int, int]) -> Placement:
    """The same cuts where dimensions have other positions; those that have none are not cut any more."""
    return tuple(None if dim is None else to.get(dim) for dim in placement)
