"""What crosses between host and device or stays there, and calls that only eager torch makes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from tt_dynamo.ir.operators.definition import TRANSFERS, define


@define("Tensor x, str dtype, str layout", TRANSFERS)
def to_device(x, dtype, layout):
    """A value that crosses from the host to the device."""
    return x


@define("Tensor x", TRANSFERS)
def to_host(x):
    """A value that crosses from the device to the host: contiguous, in memory of its own."""
    return x.clone(memory_format=torch.contiguous_format)


@define("Tensor x", TRANSFERS)
def state_read(x):
    """An input that stays on the device between calls, as it lies there."""
    return x


@define("Tensor(a!) x, Tensor new", TRANSFERS, gives="()")
def state_write(x, new):
    """Leaves `new`, on the device, as what the input x is there at the next call."""
    x.copy_(new)


@define("Tensor x, str dtype", TRANSFERS)
def keep(x, dtype):
    """An output that stays on the device, in that dtype of TTNN, for later calls to read."""
    return x.clone(memory_format=torch.contiguous_format)


@define("Tensor x, str layout")
def to_layout(x, layout):
    """A value on the device in another memory layout."""
    return x


class HostCall:
    """A call that eager torch makes, whose operands are tensors and numbers and whose other arguments may be functions.

    arguments: those of `function`, in which each `Operand` stands for the operand of that position. reason: why the
    device does not make it; completes a sentence that begins with the function.
    """

    @dataclasses.dataclass(frozen=True)
    class Operand:
        position: int

    def __init__(self, function: Callable[..., Any], args: tuple, kwargs: Mapping[str, Any], reason: str) -> None:
        self.function = function
        self.reason = reason
        self._arguments = args, kwargs
        self.__name__ = getattr(function, "__name__", str(function))

    def arguments(self, operands: Sequence[Any]) -> tuple[tuple, dict[str, Any]]:
        """The arguments of `function` with these operands among them."""

        def argument(value: Any) -> Any:
            return operands[value.position] if isinstance(value, self.Operand) else value

        return torch.fx.node.map_aggregate(self._arguments, argument)

    def __call__(self, *operands: Any) -> Any:
        args, kwargs = self.arguments(operands)
        return self.function(*args, **kwargs)
