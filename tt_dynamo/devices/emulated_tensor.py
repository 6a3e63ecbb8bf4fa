"""A tensor of the mock device together with the value it would hold, and the memory that it occupies.

What must hold: a value never changes once computed, however many tensors share it; a value has the logical shape of its
tensor; a value in freed memory can't be read.
"""

from collections.abc import Callable
from typing import Any

import torch

from .errors import EmulationError


class Memory:
    """All the memory of the open device, lost when it closes."""

    __slots__ = ("lost",)

    def __init__(self) -> None:
        self.lost = False


class Buffer:
    """Memory that one or more tensors view. `freed_by` names the operation that freed it."""

    __slots__ = ("freed_by", "memory")

    def __init__(self, memory: Memory | None = None) -> None:
        self.freed_by: str | None = None
        self.memory = memory  # None on the host


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
    represent) or int64 for integer dtypes; never written to. Reading it raises EmulationError when the memory was freed
    or the device closed.
    """

    __slots__ = ("tensor", "_value", "buffer", "__weakref__")

    def __init__(self, tensor: Any, value: torch.Tensor, buffer: Buffer):
        self.tensor = tensor
        self._value = value
        self.buffer = buffer

    @property
    def value(self) -> torch.Tensor:
        self.check_readable()
        return self._value

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
        _operation("deallocate")(self, force=force)

    def __getitem__(self, index: Any) -> Any:
        return _operation("Tensor.__getitem__")(self, index)

    def __repr__(self) -> str:
        return f"EmulatedTensor({tuple(self.shape)}, {self.dtype}, {self.layout}, {self.memory_config()})"

    __hash__ = object.__hash__


def _operation(name: str) -> Callable[..., Any]:
    import ttnn

    from .emulation import emulated_namespace

    return getattr(emulated_namespace(ttnn), name)


def _operator(name: str, swapped: bool = False) -> Callable[[EmulatedTensor, Any], Any]:
    def apply(self: EmulatedTensor, other: Any) -> Any:
        return _operation(name)(other, self) if swapped else _operation(name)(self, other)

    return apply


for _symbol, _name in {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide"}.items():
    setattr(EmulatedTensor, f"__{_symbol}__", _operator(_name))
    setattr(EmulatedTensor, f"__r{_symbol}__", _operator(_name, swapped=True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(EmulatedTensor, f"__{_name}__", _operator(_name))
