"""Values that cross between host and device, or change how they lie there."""

from __future__ import annotations

import torch

from tt_dynamo.ir.operators.definition import define


@define("to_device(Tensor x, str dtype, str layout) -> Tensor", transfer=True)
def to_device(x, dtype, layout):
    """A value that crosses from the host to the device."""
    return x


@define("to_host(Tensor x) -> Tensor", transfer=True)
def to_host(x):
    """A value that crosses from the device to the host: contiguous, in memory of its own."""
    return x.clone(memory_format=torch.contiguous_format)


@define("to_layout(Tensor x, str layout) -> Tensor")
def to_layout(x, layout):
    """A value on the device in another memory layout."""
    return x
