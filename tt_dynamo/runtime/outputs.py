"""What the caller gets lies in memory as eager torch's results do.

Passes change strides, and a view of a value may be computed on the device while the value comes down by itself. The
caller may write into what it gets: so nothing shares memory that eager torch keeps apart, neither weights nor constants
are given away, and what shares memory in eager torch shares it here, at the same strides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from tt_dynamo.ir.torch_internals import storage_of


class Result(NamedTuple):
    """A tensor as it is computed: the memory it lies in, its strides, and whether something else keeps that memory."""

    value: Any
    memory: int
    stride: tuple[int, ...]
    kept: bool


def memory_of(value: Any) -> int:
    """Which memory a tensor lies in, fake or real; 0 for what is no tensor, or a sparse one."""
    return storage_of(value) if is_strided(value) else 0


def is_strided(value: Any) -> bool:
    """Whether it is a tensor that lies in one piece of memory at strides."""
    return isinstance(value, torch.Tensor) and value.layout == torch.strided


def arranged(
    results: Sequence[Any],
    eager: Sequence[Any],
    owners: dict[int, int],
    restrided: Callable[..., Any],
    shared: Callable[..., Sequence[Any]],
) -> list[Any]:
    """The values of `results`, copied where they lie otherwise than `eager`; what is no `Result` stays as it is.

    owners: memory → the memory that eager torch has for it. restrided(value, shape, stride), shared(values, bytes,
    [(shape, stride, offset)]): make the copies.
    """
    found = [result.value if isinstance(result, Result) else result for result in results]
    for memory, positions in _by_memory(results, eager).items():
        members, wanted = [results[i] for i in positions], [eager[i] for i in positions]
        mine = {result.memory for result in members}
        is_eagers = len(mine) == 1 and owners.setdefault(members[0].memory, memory) == memory
        if is_eagers and all(r.stride == e.stride() and not r.kept for r, e in zip(members, wanted, strict=True)):
            continue
        if len(positions) == 1:
            found[positions[0]] = restrided(members[0].value, list(wanted[0].shape), list(wanted[0].stride()))
            continue
        layouts = [(list(e.shape), list(e.stride()), e.storage_offset()) for e in wanted]
        copies = shared([result.value for result in members], wanted[0].untyped_storage().nbytes(), layouts)
        for position, copy in zip(positions, copies, strict=True):
            found[position] = copy
    return found


def _by_memory(results: Sequence[Any], eager: Sequence[Any]) -> dict[int, list[int]]:
    """The positions of the tensors that lie in one memory in eager torch."""
    groups: dict[int, list[int]] = {}
    for position, (result, wanted) in enumerate(zip(results, eager, strict=True)):
        if isinstance(result, Result):
            groups.setdefault(memory_of(wanted), []).append(position)
    return groups
