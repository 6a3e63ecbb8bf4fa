"""Tensors on the host that torch writes to, with the values that TTNN reads there."""

from typing import Any

import torch

from tt_dynamo.devices.host_tensors import HostTensor

from .numerics import as_held
from .tensor import Buffer, EmulatedTensor


class EmulatedHostTensor(HostTensor):
    """As `HostTensor`, of the emulated namespace."""

    def __init__(self, ttnn: Any, tensor: EmulatedTensor) -> None:
        super().__init__(ttnn, tensor.tensor)

    def write(self, source: torch.Tensor) -> EmulatedTensor:
        written = super().write(source)
        return EmulatedTensor(written, as_held(written.to_torch()), Buffer(on_device=False), padding=0.0)
