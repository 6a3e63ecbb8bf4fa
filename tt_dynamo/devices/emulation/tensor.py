"""A tensor of the mock device together with the value it would hold, and the memory that it occupies.

What must hold: a value changes only by a write to its buffer, which every tensor of that buffer then sees and no other
does; a value has the logical shape of its tensor; a value in freed memory can't be read.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch

from tt_dynamo.devices.errors import EmulationError


class Buffer:
    """Memory that one or more tensors view.

    gone: why it can't be read any more. writes: how many operations wrote to it. contents: once one did, the value
    behind all of its tensors, which nothing else shares.
    """

    __slots__ = ("__weakref__", "contents", "gone", "writes")

    def __init__(self, on_device: bool) -> None:
        self.gone: str | None = None
        self.contents: torch.Tensor | None = None
        self.writes = 0
        if on_device:
            _on_device.add(self)

    def holds(self, value: torch.Tensor) -> bool:
        """Whether later writes to this buffer would show in `value`."""
        return self.contents is not None and shares_storage(value, self.contents)


_on_device: weakref.WeakSet[Buffer] = weakref.WeakSet()


def device_closed() -> None:
    """Whatever was on the emulated device is gone: reading it raises from now on."""
    for buffer in _on_device:
        buffer.gone = buffer.gone or "lost when its device was closed"
    _on_device.clear()


def shares_storage(value: torch.Tensor, other: torch.Tensor) -> bool:
    return value.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


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

    def __init__(self, tensor: Any, value: torch.Tensor, buffer: Buffer, padding: float | None):
        self.tensor, self.buffer, self.padding = tensor, buffer, padding
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
        if not self.buffer.holds(held):
            self.buffer.contents = held = held.clone(memory_format=torch.contiguous_format)
        held[index] = value
        self.buffer.writes += 1
        self._own, self._writes, self.padding = held, self.buffer.writes, None

    def check_readable(self) -> None:
        """Raise EmulationError if the tensor's memory is gone. TTNN itself notices only for the very tensor freed."""
        if self.buffer.gone:
            shape = tuple(self.tensor.shape)
            raise EmulationError(f"read of freed memory: a tensor of shape {shape} was {self.buffer.gone}")

    def note_freed(self, operation: str) -> None:
        """Note that `operation` freed the memory, if it did: every tensor of the buffer can't be read any more."""
        if not self.tensor.is_allocated():
            self.buffer.gone = f"freed by {operation}, on this tensor or on one that shares its buffer"

    def __getattr__(self, name: str) -> Any:
        if name in _FACTS:
            return getattr(self.tensor, name)
        raise AttributeError(f"{name!r}: tensors of the emulated device are read and changed through its namespace")

    def deallocate(self, force: bool = False) -> None:
        """Free the memory; without `force`, only if no other tensor holds it."""
        self.tensor.deallocate(force)
        self.note_freed("ttnn.deallocate")

    def __repr__(self) -> str:
        return f"EmulatedTensor({tuple(self.shape)}, {self.dtype}, {self.layout}, {self.memory_config()})"


def replace(argument: Any, part: Callable[[EmulatedTensor], Any]) -> Any:
    """`argument` with `part` of every emulated tensor in its place, also in lists, tuples and dictionaries."""
    if isinstance(argument, EmulatedTensor):
        return part(argument)
    if type(argument) in (list, tuple):
        return type(argument)([replace(item, part) for item in argument])
    if type(argument) is dict:
        return {name: replace(item, part) for name, item in argument.items()}
    return argument
