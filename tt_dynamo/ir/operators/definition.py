"""How a custom operator is defined: arguments, torch implementation, and what the compiler needs to know of it."""

from collections.abc import Callable
from typing import Any

import torch

library = torch.library.Library("tt_dynamo", "DEF")  # noqa: TOR901 (lives as long as the process)

FUNCTIONS: dict[Any, Callable[..., Any]] = {}  # each operator's torch implementation
# Kinds of operators. FUSED: becomes TTNN calls one by one where TTNN refuses the whole. CACHE_WRITES: makes a cache of
# each operand that is named so, in that one's dtype: in place, or where rows move in a tensor of its own. HOST:
# prepares positions, with eager's checks, and belongs on the host, where the positions are. WRITTEN: may run there too,
# and its text stands in programs that call it there, as that of HOST. TRANSFERS: crosses between host and device.
FUSED: set[Any] = set()
CACHE_WRITES: set[Any] = set()
HOST: set[Any] = set()
WRITTEN: set[Any] = set()
TRANSFERS: set[Any] = set()


def define(arguments: str, *kinds: set[Any], gives: str = "Tensor") -> Callable[[Callable[..., Any]], Any]:
    """Define the operator that has the name of the decorated torch function, of these kinds; gives the operator.

    arguments, gives: as in the schemas of torch.
    """

    def register(function: Callable[..., Any]) -> Any:
        name = function.__name__
        library.define(f"{name}({arguments}) -> {gives}")
        library.impl(name, function, "CompositeImplicitAutograd")
        operator = getattr(torch.ops.tt_dynamo, name).default
        FUNCTIONS[operator] = function
        for kind in kinds:
            kind.add(operator)
        return operator

    return register


def is_written(target: Any) -> bool:
    """Whether the text of an operator stands in the programs that call it on the host."""
    return target in HOST or target in WRITTEN
