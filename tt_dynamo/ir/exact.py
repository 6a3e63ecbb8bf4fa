"""Which float32 values bfloat16 holds as they are, as far as their graph tells: zeros, ones and other literals.

Masks are that, and such a value is converted for the device without a look for numbers that bfloat16 cannot hold.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from tt_dynamo.ir.graph import aten, is_call
from tt_dynamo.ir.helpers import as_bfloat16, exactly_bfloat16

# What moves the elements of its first operand and changes none.
_MOVES = (
    aten.alias.default, aten.clone.default, aten.expand.default, aten.permute.default, aten.reshape.default,
    aten.select.int, aten.slice.Tensor, aten.squeeze.dim, aten.squeeze.dims, aten.transpose.int,
    aten.unsqueeze.default, aten.view.default,
)  # fmt: skip
# Which operands of a choice between two are chosen.
_CHOICES = (aten.where.self, aten.where.Scalar, aten.where.ScalarSelf, aten.where.ScalarOther)


def to_bfloat16(value: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """The helper that a program converts a float32 value of the host with, for the device."""
    return exactly_bfloat16 if _is_exact(value) else as_bfloat16


def _is_exact(value: Any) -> bool:
    while is_call(value, *_MOVES):
        value = value.args[0]
    if is_call(value, *_CHOICES):
        return all(map(_is_exact, value.args[1:3]))
    if is_call(value, aten.full.default):
        return _is_exact(value.args[1])
    if is_call(value, aten._to_copy.default):
        source = value.args[0].meta.get("val")
        return isinstance(source, torch.Tensor) and source.dtype in (torch.bool, torch.bfloat16)
    if isinstance(value, Node) or not isinstance(value, (bool, int, float)):
        return False
    try:
        return bool(torch.tensor(value, dtype=torch.bfloat16).double() == value)
    except (OverflowError, RuntimeError):
        return False
