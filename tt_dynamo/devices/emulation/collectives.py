"""Values of TTNN's collectives: operations whose result on a chip depends on what other chips hold.

A function here takes the mesh, and the arguments of the TTNN call with a list in the place of each tensor: what each
chip holds, row after row of the mesh. It returns the same for the result. Chips that hold the same share one tensor,
and what is made of the same is made once. `cluster_axis` 0 goes down the rows of a mesh, 1 along its columns, None over
all chips.

Sums go from chip to chip, each addition rounded to the dtype in which partial sums are sent: that of the tensor, but
bfloat16 for block floats in `all_reduce` (TTNN's documentation of both). In which order chips are added up is the
topology's to say on hardware; here it is that of the mesh.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from tt_dynamo.devices.errors import EmulationError

from .numerics import round_to

Parts = list[Tensor]


class Mesh:
    """shape: rows and columns. result: what the real call returned."""

    def __init__(self, ttnn: ModuleType, shape: tuple[int, int], result: Any) -> None:
        self.ttnn, self.shape, self.result = ttnn, shape, result

    def lines(self, axis: int | None) -> list[list[int]]:
        """The chips along an axis, for each place on the other one."""
        rows, columns = self.shape
        if axis is None:
            return [list(range(rows * columns))]
        if axis == 0:
            return [list(range(column, rows * columns, columns)) for column in range(columns)]
        return [list(range(row * columns, (row + 1) * columns)) for row in range(rows)]

    def along(self, parts: Parts, axis: int | None, make: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> Parts:
        """What `make` gives for the chips of each line, which is called once for lines that hold the same."""
        found: Parts = list(parts)
        made: dict[tuple[int, ...], Sequence[Tensor]] = {}
        for line in self.lines(axis):
            held = [parts[chip] for chip in line]
            key = tuple(map(id, held))
            if key not in made:
                made[key] = make(held)
            for chip, part in zip(line, made[key], strict=True):
                found[chip] = part
        return found

    def added(self, parts: Sequence[Tensor], dtype: Any) -> Tensor:
        """The sum of what chips hold, rounded to a dtype after each addition."""
        total = parts[0]
        for part in parts[1:]:
            total = round_to(self.ttnn, total + part, dtype)
        return total


def _divided(part: Tensor, count: int, dim: int) -> list[Tensor]:
    if part.shape[dim] % count:
        raise EmulationError(f"{part.shape[dim]} elements of dimension {dim} don't divide over {count} chips")
    return [piece.contiguous() for piece in part.chunk(count, dim)]


def all_gather(mesh: Mesh, input_tensor: Parts, dim: int, *, cluster_axis: int | None = None) -> Parts:
    """What the chips of a line hold, joined along `dim`."""
    return mesh.along(input_tensor, cluster_axis, lambda held: [torch.cat(list(held), dim)] * len(held))


def reduce_scatter(mesh: Mesh, input_tensor: Parts, dim: int, *, cluster_axis: int | None = None) -> Parts:
    """The sum over the chips of a line, of which each keeps its part along `dim`."""

    def make(held: Sequence[Tensor]) -> list[Tensor]:
        return _divided(mesh.added(held, mesh.result.dtype), len(held), dim)

    return mesh.along(input_tensor, cluster_axis, make)


def all_reduce(mesh: Mesh, input_tensor: Parts, *, cluster_axis: int | None = None) -> Parts:
    """The sum over the chips of a line, on each of them."""
    ttnn, dtype = mesh.ttnn, mesh.result.dtype
    sent = ttnn.bfloat16 if dtype in (ttnn.bfloat8_b, ttnn.bfloat4_b) else dtype
    return mesh.along(input_tensor, cluster_axis, lambda held: [mesh.added(held, sent)] * len(held))


def mesh_partition(mesh: Mesh, input_tensor: Parts, dim: int, cluster_axis: int | None = None) -> Parts:
    """Of what a chip holds, its part along `dim`; nothing crosses."""

    def make(held: Sequence[Tensor]) -> list[Tensor]:
        pieces = {id(part): _divided(part, len(held), dim) for part in held}
        return [pieces[id(part)][at] for at, part in enumerate(held)]

    return mesh.along(input_tensor, cluster_axis, make)


def broadcast(mesh: Mesh, input_tensor: Parts, sender_coord: Any, *, cluster_axis: int | None = None) -> Parts:
    """What the chip of a line holds that is at the sender's place along the axis."""
    row, column = sender_coord[0], sender_coord[1]
    at = {0: row, 1: column, None: row * mesh.shape[1] + column}[cluster_axis]
    return mesh.along(input_tensor, cluster_axis, lambda held: [held[at]] * len(held))


def all_broadcast(mesh: Mesh, input_tensor: Parts, *, cluster_axis: int | None = None) -> list[Parts]:
    """For each place along the axis, what the chip there holds, on every chip of its line."""
    count = len(mesh.lines(cluster_axis)[0])
    return [
        mesh.along(input_tensor, cluster_axis, lambda held, at=at: [held[at]] * len(held))  # type: ignore[misc]
        for at in range(count)
    ]


COLLECTIVES: dict[str, Callable[..., Any]] = {
    f"ttnn.{compute.__name__}": compute
    for compute in (all_gather, reduce_scatter, all_reduce, mesh_partition, broadcast, all_broadcast)
}
