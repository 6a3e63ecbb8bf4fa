"""One row of a table: an operation, a sample of its arguments, and what the compiler makes of it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class Row:
    """An operation with one sample: the TTNN calls it becomes, in order, or why it runs in eager torch.

    name: the ATen operation; after a colon, what is particular about the sample. inputs: one value or a tuple of them.
    calls: TTNN's, without "ttnn." and transfers, separated by spaces. reasons: words of each fallback, in order.
    roundings, cancels: as `compiled.close` takes them. options: of the compiler. programs: kernel launches,
    where they matter. code: parts of the program. dynamo: whether it needs Dynamo; __init__ sets it for families.
    """

    name: str
    function: Callable[..., Any]
    inputs: Any
    calls: str = ""
    reasons: tuple[str, ...] = ()
    roundings: int = 1
    cancels: bool = False
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    programs: int | None = None
    code: tuple[str, ...] = ()
    dynamo: bool = False

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)

    def __str__(self) -> str:
        return self.name


def bind(function: Callable[..., Any] | str, *more: Any, **named: Any) -> Callable[..., Any]:
    """The function with further arguments behind its inputs; a name is that of a method of the first input."""
    if isinstance(function, str):
        return lambda x: getattr(x, function)(*more, **named)
    return lambda *inputs: function(*inputs, *more, **named)


def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function between two relus, which run on the device: placement leaves a mere move of inputs on the host."""
    return lambda x, *others: torch.relu(function(torch.relu(x), *others))
