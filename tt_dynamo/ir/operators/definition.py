"""How a custom operator is defined: its schema, its torch implementation, and what the compiler needs to know of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

library = torch.library.Library("tt_dynamo", "DEF")  # noqa: TOR901 (lives as long as the process)

FUNCTIONS: dict[Any, Callable[..., Any]] = {}  # each operator's torch implementation
FUSED: set[Any] = set()
CACHE_WRITES: set[Any] = set()
HOST: set[Any] = set()
TRANSFERS: set[Any] = set()


def define(
    schema: str, *, fused: bool = False, writes_cache: bool = False, host: bool = False, transfer: bool = False
) -> Callable[[Callable[..., Any]], Any]:
    """Define the operator `tt_dynamo::<schema>` by the decorated torch function; gives the operator.

    fused: it becomes TTNN calls one by one where TTNN refuses the whole. writes_cache: it makes a cache of its first
    operand, in that one's dtype: in place, or where rows move in a tensor of its own. host: it prepares positions, with
    eager's checks, and belongs on the host, where the positions are. transfer: it crosses between host and device.
    """
    library.define(schema)
    name = schema.partition("(")[0]
    flags = ((fused, FUSED), (writes_cache, CACHE_WRITES), (host, HOST), (transfer, TRANSFERS))

    def register(function: Callable[..., Any]) -> Any:
        library.impl(name, function, "CompositeImplicitAutograd")
        operator = getattr(torch.ops.tt_dynamo, name).default
        FUNCTIONS[operator] = function
        for is_set, members in flags:
            if is_set:
                members.add(operator)
        return operator

    return register
