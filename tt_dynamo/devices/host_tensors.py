"""Tensors of TTNN on the host that torch writes to, where `ttnn.from_torch` would make another one for each call.

What goes up at each call of a program has one dtype, shape and layout, so one tensor of TTNN serves all calls.
`ttnn.copy_host_to_device_tensor` is done with its memory when it returns, on either command queue: it copies the bytes
into the queue and waits for the threads that do so. Only memory that the caller pinned is read later; this is not.
Source: MeshCommandQueueBase::enqueue_write_shards_nolock in tt_metal/distributed/mesh_command_queue_base.cpp.
"""

import math
from typing import Any

import torch

TILE, FACE = 32, 16
DTYPES = {"BFLOAT16": torch.bfloat16, "FLOAT32": torch.float32, "INT32": torch.int32, "UINT32": torch.int32}


class HostTensor:
    """A tensor of TTNN that lies on the host, for one chip or with the same for all chips of a mesh.

    A tile is four faces of 16x16, each with its rows one after another; what fills up the last tiles stays as it is.
    Raises TypeError for a dtype that torch has no elements of and for a tensor that a mapper made for several chips,
    ValueError where the memory is of another size.
    """

    def __init__(self, ttnn: Any, tensor: Any) -> None:
        self.tensor = tensor
        if tensor.dtype.name not in DTYPES:
            raise TypeError(f"torch writes no {tensor.dtype.name}")
        buffer = tensor.host_buffer()
        if math.prod(buffer.shape()) != 1:
            raise TypeError("torch writes no tensor with a memory for each of several chips")
        shard = buffer.get_shard(ttnn.MeshCoordinate(0, 0))
        self._memory = torch.from_dlpack(shard).view(DTYPES[tensor.dtype.name])
        self._rows, self._padded = self._memory, self._memory
        self._tiles: torch.Tensor | None = None
        shape = tuple(tensor.shape)
        if tensor.layout == ttnn.TILE_LAYOUT:
            *outer, high, wide = (1, 1, *shape)
            rows, columns = -(-high // TILE), -(-wide // TILE)
            faces = self._memory.view(math.prod(outer), rows, columns, 2, 2, FACE, FACE)
            self._tiles = faces.permute(0, 1, 3, 5, 2, 4, 6)  # matrix, row of tiles, of faces, of elements; columns
            self._padded = torch.zeros((math.prod(outer), rows * TILE, columns * TILE), dtype=self._memory.dtype)
            self._rows = self._padded[:, :high, :wide]
        self._shape, self._fills_up = self._rows.shape, self._rows.shape != self._padded.shape
        if self._rows.numel() != math.prod(shape):
            raise ValueError(f"{self._rows.numel()} elements for the shape {shape}")

    def write(self, source: torch.Tensor) -> Any:
        """The tensor with the elements of `source`, which has its shape, cast to its dtype as torch casts."""
        if self._tiles is None:
            self._rows.copy_(source.reshape(self._shape))
        elif self._fills_up:
            self._rows.copy_(source.reshape(self._shape))
            self._tiles.copy_(self._padded.view(self._tiles.shape))
        else:
            self._tiles.copy_(source.reshape(self._tiles.shape))
        return self.tensor

    def takes(self, source: torch.Tensor) -> bool:
        """Whether torch casts from the dtype of `source` without rounding, or with a check before."""
        dtype = self._memory.dtype
        return source.dtype in (dtype, torch.bool) or (dtype == torch.int32 and source.dtype == torch.int64)

    def holds(self, other: "HostTensor") -> bool:
        """Whether both have the same bytes, also where tiles are filled up."""
        return torch.equal(self._memory.view(torch.uint8), other._memory.view(torch.uint8))
