"""Functions of the host that programs call; a program's text carries the source of those that it uses.

Each reads torch alone, so that a saved program runs without this package; its text has no types of ours.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from tt_dynamo.ir import operators


def checked(x: torch.Tensor, low: int, high: int) -> torch.Tensor:
    """Integers x as int32, if all lie in [low, high); raises IndexError otherwise, before a device truncates them."""
    if x.numel():
        smallest, largest = (end.item() for end in torch.aminmax(x))  # an int32 tensor compares wrongly with 2^31
        if smallest < low or largest >= high:
            raise IndexError(f"integers from {smallest} to {largest}, expected {low} <= i < {high}")
    return x.to(torch.int32)


def restrided(x: torch.Tensor, shape: list, stride: list) -> torch.Tensor:
    """x in memory of its own with the strides that eager torch gives: 0 where it repeats a value."""
    y = torch.empty_strided(shape, stride, dtype=x.dtype)
    once = tuple(slice(0, 1) if step == 0 else slice(None) for step in stride)
    y[once].copy_(x[once])
    return y


def shared(tensors: list, size: int, layouts: list) -> list:
    """Views of one new memory of `size` bytes that hold these tensors, each at its (shape, stride, offset)."""
    memory = torch.empty(size, dtype=torch.uint8).untyped_storage()
    views = []
    for x, (*lie, at) in zip(tensors, layouts, strict=True):
        view = torch.empty(0, dtype=x.dtype).set_(memory, at, *lie)
        views.append(view)
        once = tuple(slice(0, 1) if step == 0 else slice(None) for step in view.stride())
        view[once].copy_(x[once])
    return views


def as_bfloat16(x: torch.Tensor) -> torch.Tensor:
    """Float32 x in bfloat16; finite numbers beyond its range become its largest, since masks are to stay finite."""
    y = x.to(torch.bfloat16)
    total = y.sum().item()
    if total - total != 0:  # an infinity, NaN, or a sum beyond the range
        largest = torch.finfo(torch.bfloat16).max
        y = torch.where(x.isfinite(), x.clamp(-largest, largest), x).to(torch.bfloat16)
    return y


def exactly_bfloat16(x: torch.Tensor) -> torch.Tensor:
    """Float32 x in bfloat16, which holds each of its values."""
    return x.to(torch.bfloat16)


def source_of(function: Callable[..., Any]) -> str:
    """The text of a function without its decorator."""
    source = inspect.getsource(function)
    return source[source.index("def ") :]


# What a program may call on the host, by the target of its node: the text that defines it.
HELPERS: dict[Any, str] = {
    **{helper: source_of(helper) for helper in (checked, restrided, shared, as_bfloat16, exactly_bfloat16)},
    **{
        target: source_of(operators.FUNCTIONS[target]) for target in operators.FUNCTIONS if operators.is_written(target)
    },
}
