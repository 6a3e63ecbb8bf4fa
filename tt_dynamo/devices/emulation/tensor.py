"""A tensor of the mock device together with the value it would hold, and the memory that it occupies.

What must hold: a value changes only by a write to its buffer, which every tensor of that buffer then sees and no other
does; a value has the logical shape of its tensor; a value in freed memory can't be read.
"""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tt_dynamo.devices.errors import EmulationError

from .chips import PerChip, Value, at, parts_of, per_chip


class Buffer:
    """Memory that one or more tensors view.

    gone: why it can't be read any more. writes: how many operations wrote to it. contents: once one did, the value
    behind all of its tensors, which nothing else shares.
    """

    __slots__ = ("__weakref__", "contents", "gone", "writes")

    def __init__(self, on_device: bool) -> None:
        self.gone: str | None = None
        self.contents: Value | None = None
        self.writes = 0
        if on_device:
            _on_device.add(self)

    def holds(self, value: Value) -> bool:
        """Whether later writes to this buffer would show in `value`."""
        return self.contents is not None and shares_storage(value, self.contents)


_on_device: weakref.WeakSet[Buffer] = weakref.WeakSet()


def device_closed() -> None:
    """Whatever was on the emulated device is gone: reading it raises from now on."""
    for buffer in _on_device:
        buffer.gone = buffer.gone or "lost when its device was closed"
    _on_device.clear()


def shares_storage(value: Value, other: Value) -> bool:
    if isinstance(value, PerChip):
        return any(shares_storage(part, other) for part in value)
    if isinstance(other, PerChip):
        return shares_storage(other, value)
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
    represent) or int64 for integer dtypes; later writes to the buffer show in it. On a mesh whose chips hold different
    elements a `PerChip` of such. Reading it raises EmulationError when the memory was freed or the device closed.

    padding: what fills the last tiles up beyond the logical shape, None where that is not known.
    """

    __slots__ = ("tensor", "padding", "buffer", "_own", "_writes", "__weakref__")

    def __init__(self, tensor: Any, value: Value, buffer: Buffer, padding: float | None):
        self.tensor, self.buffer, self.padding = tensor, buffer, padding
        self._own = value
        self._writes = buffer.writes  # those that `value` has seen

    @property
    def value(self) -> Value:
        self.check_readable()
        return self._value

    @property
    def _value(self) -> Value:
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

    def of_chip(self, chip: int) -> "EmulatedTensor":
        """The tensor as one chip of the mesh has it, for reading."""
        return EmulatedTensor(self.tensor, at(self._value, chip), self.buffer, self.padding)

    def write(self, index: Any, value: Value) -> None:
        """Set the elements at `index` to `value`, rounded already, for every tensor of the buffer to see.

        Only the first write to a buffer copies its value; the others cost what they write.
        """
        held = self._value
        if isinstance(value, PerChip) or isinstance(held, PerChip):
            chips = len(value) if isinstance(value, PerChip) else len(held)
            self.write_each([(index, part) for part in parts_of(value, chips)])
            return
        if not self.buffer.holds(held):
            self.buffer.contents = held = held.clone(memory_format=torch.contiguous_format)
        held[index] = value
        self.buffer.writes += 1
        self._own, self._writes, self.padding = held, self.buffer.writes, None

    def write_each(self, writes: Sequence[tuple[Any, torch.Tensor]]) -> None:
        """`write`, of something else on each chip. Chips that held the same and get the same share one tensor after."""
        held = parts_of(self._value, len(writes))
        is_own = self.buffer.holds(self._value)
        gets: dict[int, set[tuple[int, int]]] = {}
        for part, (index, value) in zip(held, writes, strict=True):
            gets.setdefault(id(part), set()).add((id(index), id(value)))
        made: dict[tuple[int, int, int], torch.Tensor] = {}
        for part, (index, value) in zip(held, writes, strict=True):
            key = (id(part), id(index), id(value))
            if key not in made:
                in_place = is_own and len(gets[id(part)]) == 1
                made[key] = part if in_place else part.clone(memory_format=torch.contiguous_format)
                made[key][index] = value
        parts = [made[id(part), id(index), id(value)] for part, (index, value) in zip(held, writes, strict=True)]
        self.buffer.contents = per_chip(parts)
        self.buffer.writes += 1
        self._own, self._writes, self.padding = self.buffer.contents, self.buffer.writes, None

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
