"""A tensor of the mock device together with the value it would hold, and the memory that it occupies.

What must hold: a value changes only by a write to its buffer, which every tensor of that buffer then sees and no other
does; a value has the logical shape of its tensor; a value in freed memory can't be read.
"""

from collections.abc import Callable
from typing import Any

import torch

from tt_dynamo.devices.errors import EmulationError


class Memory:
    """All the memory of the open device, lost when it closes."""

    __slots__ = ("lost",)

    def __init__(self) -> None:
        self.lost = False


class Buffer:
    """Memory that one or more tensors view.

    freed_by: the operation that freed it. writes: how many operations wrote to it. contents: once one did, the value
    behind all of its tensors, which nothing else shares.
    """

    __slots__ = ("contents", "freed_by", "memory", "writes")

    def __init__(self, memory: Memory | None = None) -> None:
        self.freed_by: str | None = None
        self.contents: torch.Tensor | None = None
        self.writes = 0
        self.memory = memory  # None on the host

    def holds(self, value: torch.Tensor) -> bool:
        """Whether later writes to this buffer would show in `value`."""
        return self.contents is not None and _storage(value) == _storage(self.contents)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


# What TTNN tensors tell about themselves without touching contents. Everything else is an operation and goes through
# the namespace: a read from the mock would give zeros.
_FACTS = frozenset({
    "shape", "padded_shape", "dtype", "layout", "spec", "tile", "memory_config", "device", "devices", "storage_type",
    "is_allocated", "is_sharded", "buffer_address", "buffer_unique_id", "buffer_num_pages", "buffer_page_size",
    "buffer_aligned_page_size", "get_dtype", "get_layout", "get_tile", "volume", "logical_volume", "element_size",
    "tensor_id", "tensor_topology", "device_coords",
})  # fmt: skip


class EmulatedTensor:
    """A tensor of the mock device and the value it would hold.

    tensor: the ttnn.Tensor. value: torch.Tensor of the same logical shape, float32 (elements that the device dtype can
    represent) or int64 for integer dtypes; later writes to the buffer show in it. Reading it raises EmulationError when
    the memory was freed or the device closed.

    padding: what fills the last tiles up beyond the logical shape, None where that is not known.
    """

    __slots__ = ("tensor", "padding", "buffer", "_own", "_writes", "__weakref__")

    def __init__(self, tensor: Any, value: torch.Tensor, buffer: Buffer):
        self.tensor = tensor
        self.padding: float | None = None
        self.buffer = buffer
        self._own = value
        self._writes = buffer.writes  # those that `value` has seen

    @property
    def value(self) -> torch.Tensor:
        self.check_readable()
        return self._value

    @property
    def _value(self) -> torch.Tensor:
        buffer = self.buffer
        if self._writes != buffer.writes:
            assert buffer.contents is not None
            # Tensors of one buffer hold the same elements in the same order, but for those that a tile's padding adds.
            if self._own.numel() != buffer.contents.numel():
                raise EmulationError(
                    f"the buffer of a tensor of shape {tuple(self.tensor.shape)} was written to through one of shape "
                    f"{tuple(buffer.contents.shape)}, from which its value does not follow"
                )
            self._own, self._writes = buffer.contents.view(self._own.shape), buffer.writes
        return self._own

    def write(self, index: Any, value: torch.Tensor) -> None:
        """Set the elements at `index` to `value`, rounded already, for every tensor of the buffer to see.

        Only the first write to a buffer copies its value; the others cost what they write.
        """
        held = self._value
        if self.buffer.contents is None or not self.buffer.holds(held):
            self.buffer.contents = held = held.clone(memory_format=torch.contiguous_format)
        held[index] = value
        self.buffer.writes += 1
        self._own, self._writes, self.padding = held, self.buffer.writes, None

    def check_readable(self) -> None:
        """Raise EmulationError if the tensor's memory is gone. TTNN itself notices only for the very tensor freed."""
        if self.buffer.freed_by is not None:
            raise EmulationError(
                f"read of freed memory: the buffer of a tensor of shape {tuple(self.tensor.shape)} was freed by "
                f"{self.buffer.freed_by}, on this tensor or on one that shares its buffer"
            )
        if self.buffer.memory is not None and self.buffer.memory.lost:
            raise EmulationError(f"a tensor of shape {tuple(self.tensor.shape)} was lost when its device was closed")

    def __getattr__(self, name: str) -> Any:
        if name in _FACTS:
            return getattr(self.tensor, name)
        raise AttributeError(f"{name!r}: tensors of the emulated device are read and changed through its namespace")

    def deallocate(self, force: bool = False) -> None:
        """Free the memory; without `force`, only if no other tensor holds it."""
        import ttnn

        from .namespace import emulated_namespace

        emulated_namespace(ttnn).deallocate(self, force=force)

    def __repr__(self) -> str:
        return f"EmulatedTensor({tuple(self.shape)}, {self.dtype}, {self.layout}, {self.memory_config()})"


def replace(argument: Any, part: Callable[[EmulatedTensor], Any], seen: list[EmulatedTensor] | None = None) -> Any:
    """`argument` with `part` of every emulated tensor in its place, also in lists and tuples; `seen` collects them."""
    if isinstance(argument, EmulatedTensor):
        if seen is not None:
            seen.append(argument)
        return part(argument)
    if type(argument) in (list, tuple):
        return type(argument)([replace(item, part, seen) for item in argument])
    return argument
