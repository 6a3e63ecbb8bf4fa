"""Comparison, logic and choice: ATen node → TTNN calls. Booleans are bfloat16 0.0 and 1.0 on the device."""

from __future__ import annotations

import torch

from tt_dynamo.graph import Unsupported, aten
from tt_dynamo.lowering.registry import lower

COMPARISONS = {
    aten.eq.Scalar: "eq",
    aten.ne.Scalar: "ne",
    aten.lt.Scalar: "lt",
    aten.le.Scalar: "le",
    aten.gt.Scalar: "gt",
    aten.ge.Scalar: "ge",
    aten.eq.Tensor: "eq",
    aten.ne.Tensor: "ne",
    aten.lt.Tensor: "lt",
    aten.le.Tensor: "le",
    aten.gt.Tensor: "gt",
    aten.ge.Tensor: "ge",
}


def _comparison(name):
    def compare(ttnn, a, b):
        return as_boolean(ttnn, getattr(ttnn, name)(a, b))

    compare.__doc__ = f"{name} of two broadcast operands, the second a tensor or a number, as a boolean."
    compare.__name__ = name
    return compare


for _target, _name in COMPARISONS.items():
    lower(_target)(_comparison(_name))


def as_boolean(ttnn, x):
    """TTNN's comparisons answer 0 and 1 in the operand's dtype."""
    return x if x.dtype == ttnn.bfloat16 else ttnn.typecast(x, ttnn.bfloat16)


@lower(aten.bitwise_not.default, aten.logical_not.default)
def logical_not(ttnn, x):
    """Not x, for booleans."""
    if x.dtype != ttnn.bfloat16:
        raise Unsupported("bitwise_not of integers stays on the host")
    return ttnn.eqz(x)


@lower(aten.bitwise_and.Tensor, aten.logical_and.default)
def logical_and(ttnn, a, b):
    """a and b, for booleans."""
    if a.dtype != ttnn.bfloat16 or b.dtype != ttnn.bfloat16:
        raise Unsupported("bitwise_and of integers stays on the host")
    return ttnn.multiply(a, b)


@lower(aten.where.Scalar)
def where_scalars(ttnn, condition, x, other):
    """One of two numbers by a boolean."""
    return ttnn.where(condition, x, other)


@lower(aten.where.self)
def where(ttnn, condition, x, other):
    """An element of x where the condition holds, else of other; float."""
    if x.dtype != ttnn.bfloat16 or other.dtype != ttnn.bfloat16:
        raise Unsupported("choosing between integers stays on the host")
    return ttnn.where(condition, x, other)


@lower(aten._to_copy.default)
def cast(ttnn, x, *, dtype=None, layout=None, device=None, pin_memory=None, non_blocking=False, memory_format=None):
    """x in another dtype: between floats, from booleans and integers to floats, from integers to booleans."""
    is_integer = x.dtype == ttnn.int32
    if dtype == torch.bool:
        return as_boolean(ttnn, ttnn.ne(x, 0))
    if dtype in (torch.float32, torch.bfloat16):
        return ttnn.typecast(x, ttnn.bfloat16) if is_integer else x
    raise Unsupported(f"a cast to {dtype} stays on the host")
