"""A value on the device: what of it is known at compile time, and how many bytes it takes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch.fx import Node

# Of an element, where that is not 16; 16 elements of a block float share an exponent.
BITS = {"int32": 32, "uint32": 32, "float32": 32, "bfloat8_b": 8.5, "bfloat4_b": 4.5}


@dataclasses.dataclass(frozen=True)
class Spec:
    """A value on the device: logical shape, TTNN dtype ("bfloat16"), layout ("TILE", "ROW_MAJOR"), buffer ("DRAM").

    memory "HOST": a tensor of TTNN that stays on the host. prepare: the TTNN call that lays such a tensor, `weight`,
    out on the device as an operation reads it; empty where it goes up as it is.
    """

    shape: tuple[int, ...]
    dtype: str
    layout: str
    memory: str = "DRAM"
    prepare: str = ""


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
