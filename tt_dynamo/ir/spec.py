"""A value on the device: what of it is known at compile time, and how many bytes it takes."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from tt_dynamo.ir.errors import Unsupported

# Of an element, where that is not 16; 16 elements of a block float share an exponent.
BITS = {"int32": 32, "uint32": 32, "float32": 32, "bfloat8_b": 8.5, "bfloat4_b": 4.5}

BLOCK_FLOATS = ("bfloat8_b", "bfloat4_b")


def divisors(number: int, most: int) -> list[int]:
    """The divisors of a number up to `most`, the largest first."""
    return [size for size in range(min(number, most), 0, -1) if number % size == 0]


@dataclasses.dataclass(frozen=True)
class Spec:
    """A value on the device: logical shape, TTNN dtype ("bfloat16"), layout ("TILE", "ROW_MAJOR"), buffer ("DRAM").

    memory "HOST": a tensor of TTNN that stays on the host. prepare: the TTNN call that lays such a tensor, `weight`,
    out on the device as an operation reads it; empty where it goes up as it is. placement: for each axis of the mesh
    the dimension that is sharded over it, None where every chip holds all of it; () on every mesh is replicated.
    each: whether every chip of a mesh has its own, so that `weight` is a list with one for each.
    banks: of DRAM, over which the columns of a matrix are sharded in whole tiles; 0 where it lies interleaved.
    """

    shape: tuple[int, ...]
    dtype: str
    layout: str
    memory: str = "DRAM"
    prepare: str = ""
    placement: tuple[int | None, ...] = ()
    banks: int = 0
    each: bool = False

    @property
    def memory_config(self) -> str:
        """Where on the device it goes up to, as a program writes it."""
        return shards_over_banks(self.shape, self.banks) if self.banks else "ttnn.DRAM_MEMORY_CONFIG"

    @property
    def calls(self) -> tuple[str, ...]:
        """The TTNN calls that bring `weight`, a torch tensor, to `device`, each as the `weight` of the next.

        Raises Unsupported for an input that TTNN prepares for itself and that is cut over a mesh.
        """
        if any(dim is not None for dim in self.placement) and (self.prepare or self.memory == "HOST"):
            raise Unsupported("TTNN prepares this operand once for all chips of a mesh, and each has its own")
        layout, dtype = self.layout, self.dtype
        if self.prepare:  # of rows, which block floats are not; TTNN makes them of bfloat16
            layout, dtype = "ROW_MAJOR", "bfloat16" if dtype in BLOCK_FLOATS else dtype
        device = None if self.prepare or self.memory == "HOST" else "device"
        where = f", memory_config={self.memory_config}" if self.banks else ""
        how = f"dtype=ttnn.{dtype}, layout=ttnn.{layout}_LAYOUT"
        if self.each:
            parts = f"ttnn.from_host_shards([ttnn.from_torch(part, {how}) for part in weight], device.shape)"
            if device is None:
                return (parts, self.prepare) if self.prepare else (parts,)
            return (f"ttnn.to_device({parts}, device{where})",)
        if self.is_cut:
            where += f", mesh_mapper={self._mapper}"
        up = f"ttnn.from_torch(weight, {how}, device={device}{where})"
        return (up, self.prepare) if self.prepare else (up,)

    @property
    def is_cut(self) -> bool:
        """Whether chips of a mesh hold different parts."""
        return self.each or any(dimension is not None for dimension in self.placement)

    @property
    def _mapper(self) -> str:
        """How TTNN cuts a tensor over the axes of a mesh, as a program writes it."""
        if len({*self.placement}) == 1:  # chip by chip along the rows
            return f"ttnn.ShardTensorToMesh(device, dim={self.placement[0]})"
        return f"ttnn.ShardTensor2dMesh(device, dims={self.placement}, mesh_shape=tuple(device.shape))"

    def upload(self, ttnn: Any, device: Any, weight: Any) -> Any:
        """What `calls` make of a torch tensor, whose dtype TTNN takes."""
        for call in self.calls:
            weight = evaluate(call, ttnn, device, weight)
        return weight


def evaluate(call: str, ttnn: Any, device: Any, weight: Any) -> Any:
    """What a TTNN call gives, written as a program carries it."""
    return eval(call, {"ttnn": ttnn, "device": device, "weight": weight})


TILE = 32


def shards_over_banks(shape: Sequence[int], banks: int) -> str:
    """The memory configuration of a matrix whose columns are sharded over so many DRAM banks, as a program writes it.

    All shards are as wide as the first, so the last may be padded, or lack columns altogether.
    """
    high, wide = tiles(shape)
    shard = [high * TILE, math.ceil(wide / banks) * TILE]
    cores = f"ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord({banks - 1}, 0))])"
    spec = f"ttnn.ShardSpec({cores}, {shard}, ttnn.ShardOrientation.ROW_MAJOR)"
    return f"ttnn.MemoryConfig(ttnn.TensorMemoryLayout.WIDTH_SHARDED, ttnn.BufferType.DRAM, {spec})"


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How a value lies in L1 in block shards: on columns x rows of cores, height x width tiles on each.

    Rows are counted through all dimensions but the last, those of each matrix filled up to whole tiles. Cores at the
    lower and right ends may hold fewer tiles. or_interleaved: whether its readers take it interleaved in L1 as well.
    """

    columns: int
    rows: int
    height: int
    width: int
    or_interleaved: bool = False

    @classmethod
    def over(cls, cores: tuple[int, int], shape: Sequence[int]) -> "Blocks":
        """On as many of cores (columns, rows) as share the tiles of a row evenly and leave no core without rows."""
        high, wide = tiles(shape)
        columns = max(count for count in range(1, cores[0] + 1) if wide % count == 0)
        height = math.ceil(high / cores[1])
        return cls(columns, math.ceil(high / height), height, wide // columns)

    def of_width(self, size: int) -> "Blocks":
        """Those of a value of as many rows on the same cores, with `size` elements a row."""
        return dataclasses.replace(self, width=math.ceil(math.ceil(size / TILE) / self.columns))


@dataclasses.dataclass(frozen=True)
class Columns:
    """How one row of tiles lies in L1 in width shards: `width` tiles on each of columns x rows of cores."""

    columns: int
    rows: int
    width: int

    @classmethod
    def over(cls, cores: tuple[int, int], wide: int, about: int = 32) -> "Columns":
        """`wide` tiles, shared evenly by about so many of cores (columns, rows); models of tt-metal take 32.

        More cores are a longer way for what a product sends around, fewer have more to norm.
        Source: find_grid of models/tt_transformers/tt/model_config.py.
        """
        counts = reversed(divisors(wide, math.prod(cores)))  # of two as good, the fewer
        shapes = [shape for count in counts for shape in _rectangles(count, cores)]
        columns, rows = min(shapes, key=lambda shape: (abs(math.prod(shape) - about), shape[1]))
        return cls(columns, rows, wide // (columns * rows))

    @classmethod
    def of_parts(cls, cores: tuple[int, int], wide: int, part: int) -> "Columns | None":
        """`wide` tiles on the fewest cores that are a rectangle of those, each with tiles of one part alone.

        part: tiles of each. None where no rectangle of cores (columns, rows) has them so.
        """
        lies = (cls(*shape, width) for width in divisors(part, part) for shape in _rectangles(wide // width, cores))
        return next(lies, None)

    def of_width(self, size: int) -> "Columns":
        """Those of a row of `size` elements on the same cores."""
        return dataclasses.replace(self, width=math.ceil(math.ceil(size / TILE) / (self.columns * self.rows)))

    def blocks(self) -> list[int]:
        """How many tiles of such a row a product may send around at once, the most first: whole shards, or even parts.

        One core gathers a block of several shards before it sends that.
        """
        wide = self.columns * self.rows * self.width
        return [size for size in divisors(wide, MOST_SENT) if size % self.width == 0 or self.width % size == 0]

    def on_rectangle(self, most: int) -> "Columns":
        """The same columns on cores that are a rectangle where whole rows of `most` cores fill up one after another.

        One row of cores has them where several would leave the last half empty.
        """
        count, wide = self.columns * self.rows, self.columns * self.rows * self.width
        if count <= most or count % most == 0:
            return self
        count = max(size for size in range(1, most + 1) if wide % size == 0)
        return Columns(count, 1, wide // count)


def _rectangles(count: int, cores: tuple[int, int]) -> list[tuple[int, int]]:
    """So many cores as rectangles (columns, rows) of those, the fewest rows first."""
    return [(count // rows, rows) for rows in range(1, cores[1] + 1) if count % rows == 0 and count // rows <= cores[0]]


# Tiles of the inner dimension that a product of one row of tiles sends around at once, at most.
MOST_SENT = 32


@dataclasses.dataclass(frozen=True)
class Interleaved:
    """That a value lies interleaved in L1."""


def tiles(shape: Sequence[int]) -> tuple[int, int]:
    """How many tiles a value is high and wide, its matrices one below the other."""
    *outer, high, wide = (1, 1, *shape)
    return math.prod(outer) * math.ceil(high / TILE), math.ceil(wide / TILE)


DEVICE_DTYPES = {
    torch.float32: "bfloat16",
    torch.bfloat16: "bfloat16",
    torch.float16: "bfloat16",
    torch.bool: "bfloat16",  # TTNN's comparisons answer in the operand's dtype; 0.0 and 1.0 are exact
    torch.int64: "int32",
    torch.int32: "int32",
}


LARGEST = torch.finfo(torch.bfloat16).max


def spec_bytes(spec: Spec) -> int:
    """Bytes of the logical elements of a value on the device."""
    return math.ceil(math.prod(spec.shape) * BITS.get(spec.dtype, 16) / 8)


def on_device(tensor: Any) -> bool:
    """Whether a tensor lies on the device: not one of torch, nor one of TTNN on the host."""
    return hasattr(tensor, "buffer_address") and tensor.device() is not None


def spec_of(tensor: Any) -> Spec:
    """The spec that TTNN reports for a tensor."""
    memory = tensor.memory_config().buffer_type.name
    return Spec(tuple(tensor.shape), tensor.dtype.name.lower(), tensor.layout.name, memory)


class Value:
    """A tensor on the device as a lowering sees it at compile time: the node that makes it, and its real spec."""

    __slots__ = ("node", "tensor")

    def __init__(self, node: Node, tensor: Any) -> None:
        self.node = node
        self.tensor = tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> Any:
        return self.tensor.dtype

    @property
    def layout(self) -> Any:
        return self.tensor.layout

    def is_sharded(self) -> bool:
        return bool(self.tensor.is_sharded())
