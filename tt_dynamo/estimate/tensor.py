"""What the estimate reads of a TTNN call: the operation, and of its tensors shape, dtype, layout and place."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TILE = 32
FACE = 16  # rows of a face: a tile is four
TILE_BYTES = {"bfloat16": 2048, "bfloat8_b": 1088, "bfloat4_b": 576, "float32": 4096, "int32": 4096, "uint32": 4096}


def ceil_div(a: float, b: float) -> int:
    return math.ceil(a / b)


@dataclass(frozen=True)
class Tensor:
    """A tensor on one chip.

    shape: logical. dtype: "bfloat16". layout: "TILE" or "ROW_MAJOR". memory: "DRAM", "L1" or "HOST". sharding:
    "INTERLEAVED", "HEIGHT_SHARDED", "WIDTH_SHARDED" or "BLOCK_SHARDED". cores: on which its shards lie, 0 interleaved.
    shard_width: columns of each shard, 0 where that is not known.
    """

    shape: tuple[int, ...]
    dtype: str = "bfloat16"
    layout: str = "TILE"
    memory: str = "DRAM"
    sharding: str = "INTERLEAVED"
    cores: int = 0
    shard_width: int = 0

    @functools.cached_property
    def rows(self) -> int:
        """Rows of tiles, of all leading dimensions together."""
        shape = (1, 1, *self.shape)
        return math.prod(shape[:-2]) * ceil_div(shape[-2], TILE)

    @functools.cached_property
    def columns(self) -> int:
        """Columns of tiles."""
        return ceil_div(self.shape[-1], TILE) if self.shape else 1

    @functools.cached_property
    def tiles(self) -> int:
        return self.rows * self.columns

    @functools.cached_property
    def tile_bytes(self) -> int:
        return TILE_BYTES.get(self.dtype, 2048)

    @functools.cached_property
    def bytes(self) -> int:
        if self.layout == "TILE":
            return self.tiles * self.tile_bytes
        return math.prod(self.shape) * self.tile_bytes // TILE**2

    @functools.cached_property
    def pages(self) -> int:
        """What is read at once: tiles, or in ROW_MAJOR rows."""
        return self.tiles if self.layout == "TILE" else math.prod(self.shape[:-1])

    def across(self, most: int) -> int:
        """On how many cores each row lies, of up to `most` where the width of its shards is not known."""
        if self.sharding not in ("BLOCK_SHARDED", "WIDTH_SHARDED"):
            return 1
        return ceil_div(self.shape[-1], self.shard_width) if self.shard_width else min(self.columns, most)

    @property
    def in_dram(self) -> bool:
        return self.memory == "DRAM"

    @property
    def sharded_in_l1(self) -> bool:
        return self.sharding != "INTERLEAVED" and self.memory == "L1"


@dataclass(frozen=True)
class Call:
    """One TTNN call: "ttnn.linear", its tensors in order, its results, and what else it was given by name."""

    name: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.inputs, *self.outputs)


@functools.lru_cache(maxsize=4096)
def _described(shape: tuple[int, ...], dtype: str, layout: str, memory: str, sharding: str, *shards: int) -> Tensor:
    return Tensor(shape, dtype, layout, memory, sharding, *shards)


@functools.lru_cache(maxsize=256)
def _name(member: Any) -> str:
    """Of a member of an enumeration of TTNN; asking TTNN takes longer."""
    return str(member.name)


@functools.lru_cache(maxsize=64)
def _dtype(member: Any) -> str:
    return str(member.name).lower()


def describe(tensor: Any) -> Tensor:
    """A tensor of TTNN, on the device or the host."""
    config = tensor.memory_config()
    sharding, cores, width = _name(config.memory_layout), 0, 0
    if tensor.device() is None:
        memory = "HOST"
    else:
        memory = _name(config.buffer_type)
        if sharding != "INTERLEAVED":
            spec = config.shard_spec
            cores, width = (spec.grid.num_cores(), spec.shape[1]) if spec is not None else (1, 0)
    return _described(tuple(tensor.shape), _dtype(tensor.dtype), _name(tensor.layout), memory, sharding, cores, width)
