"""Comparison, logic and choice: ATen node → TTNN calls. Booleans are bfloat16 0.0 and 1.0 on the device."""

from __future__ import annotations

import math

import torch

from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.spec import LARGEST
from tt_dynamo.lowering.elementwise import is_integer, is_tensor, require_float
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

PREDICATES = {
    aten.isinf.default: "isinf",
    aten.isnan.default: "isnan",
    aten.isneginf.default: "isneginf",
    aten.isposinf.default: "isposinf",
}

LOGIC = {
    aten.bitwise_and.Tensor: "logical_and",
    aten.bitwise_or.Tensor: "logical_or",
    aten.bitwise_xor.Tensor: "logical_xor",
    aten.logical_and.default: "logical_and",
    aten.logical_or.default: "logical_or",
    aten.logical_xor.default: "logical_xor",
}


def as_boolean(ttnn, x):
    """TTNN's comparisons answer 0 and 1 in the operand's dtype."""
    return x if x.dtype == ttnn.bfloat16 else ttnn.typecast(x, ttnn.bfloat16)


def _comparison(name):
    def compare(ttnn, a, b):
        if is_tensor(b) and is_integer(ttnn, a) != is_integer(ttnn, b):
            raise Unsupported("integers are compared with floats on the host")
        if is_integer(ttnn, a):
            return as_boolean(ttnn, getattr(ttnn, name)(a, b if is_tensor(b) else _whole(b)))
        if a is b or (not is_tensor(b) and not math.isfinite(b)):
            return _compare_by_kind(ttnn, name, a, b)
        # The device holds both in bfloat16: so a number stays equal to the elements that were that number.
        return getattr(ttnn, name)(a, b if is_tensor(b) else torch.tensor(float(b)).bfloat16().item())

    compare.__doc__ = f"{name} of two broadcast operands, the second a tensor or a number, as a boolean."
    compare.__name__ = name
    return compare


def _whole(number):
    if number != int(number) or not -(1 << 31) <= number < 1 << 31:
        raise Unsupported(f"integers are compared with {number} on the host")
    return int(number)


def _compare_by_kind(ttnn, name, a, b):
    """Comparisons with infinity and of a tensor with itself: TTNN subtracts, and inf - inf is NaN.

    Those that TTNN has no predicate for stay on the host.
    """
    if a is b and name in ("eq", "ne"):
        return ttnn.isnan(a) if name == "ne" else ttnn.eqz(ttnn.isnan(a))
    if a is not b and math.isinf(b):
        is_infinity = ttnn.isposinf if b > 0 else ttnn.isneginf
        if name in ("eq", "ge" if b > 0 else "le"):
            return is_infinity(a)
        if name == "ne":
            return ttnn.eqz(is_infinity(a))
    raise Unsupported(f"{name} with {'itself' if a is b else b} stays on the host")


for _target, _name in COMPARISONS.items():
    lower(_target)(_comparison(_name))


def _predicate(name):
    def predicate(ttnn, x):
        require_float(ttnn, x)
        return getattr(ttnn, name)(x)

    predicate.__doc__ = f"{name} of each element of x, float, as a boolean."
    predicate.__name__ = name
    return predicate


for _target, _name in PREDICATES.items():
    lower(_target)(_predicate(_name))


@lower(aten.signbit.default)
def signbit(ttnn, x):
    """Whether an element of x, float, is negative or -0.0."""
    require_float(ttnn, x)
    return ttnn.signbit(x)


@lower(aten.logical_not.default)
def logical_not(ttnn, x):
    """Whether an element of x is zero."""
    return as_boolean(ttnn, ttnn.eqz(x))


@lower(aten.bitwise_not.default)
def bitwise_not(ttnn, x):
    """Not x, for booleans."""
    if is_integer(ttnn, x):
        raise Unsupported("bitwise_not of integers stays on the host")
    return ttnn.eqz(x)


def _logic(name, of_bits):
    def logic(ttnn, a, b):
        if any(is_integer(ttnn, x) for x in (a, b)):
            if of_bits:
                raise Unsupported("the bits of integers stay on the host")
            a, b = (as_boolean(ttnn, ttnn.nez(x)) if is_integer(ttnn, x) else x for x in (a, b))
        return getattr(ttnn, name)(a, b)

    logic.__doc__ = f"{name} of two broadcast operands: booleans, or whether elements are zero."
    logic.__name__ = name
    return logic


for _target, _name in LOGIC.items():
    lower(_target)(_logic(_name, of_bits="bitwise" in str(_target)))


def _require_boolean(ttnn, x, number):
    if is_integer(ttnn, x) or not isinstance(number, bool):
        raise Unsupported("the bits of integers stay on the host")


@lower(aten.bitwise_and.Scalar)
def and_number(ttnn, x, number):
    """x and a boolean, for booleans."""
    _require_boolean(ttnn, x, number)
    return x if number else ttnn.fill(x, 0.0)


@lower(aten.bitwise_or.Scalar)
def or_number(ttnn, x, number):
    """x or a boolean, for booleans."""
    _require_boolean(ttnn, x, number)
    return ttnn.fill(x, 1.0) if number else x


@lower(aten.bitwise_xor.Scalar)
def xor_number(ttnn, x, number):
    """Either x or a boolean, for booleans."""
    _require_boolean(ttnn, x, number)
    return ttnn.eqz(x) if number else x


@lower(aten.where.Scalar)
def where_scalars(ttnn, condition, x, other):
    """One of two numbers by a boolean."""
    return ttnn.where(condition, float(x), float(other))


@lower(aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther)
def where(ttnn, condition, x, other):
    """An element of x where the condition holds, else of other; broadcast, one of them may be a number.

    TTNN copies the bits of the element that it chooses, so that the other may be NaN, and integers are exact.
    """
    tensors = [value for value in (x, other) if is_tensor(value)]
    integers = [is_integer(ttnn, value) for value in tensors]
    if any(integers):
        if len(tensors) < 2 or not all(integers):
            raise Unsupported("a choice between an integer and a float stays on the host")
        return ttnn.where(ttnn.typecast(condition, ttnn.int32), x, other)
    x, other = (value if is_tensor(value) else float(value) for value in (x, other))
    return ttnn.where(condition, x, other)


@lower(aten.nan_to_num.default)
def nan_to_num(ttnn, x, nan=None, posinf=None, neginf=None):
    """x with numbers in place of NaN (0 unless given) and infinities (the largest numbers unless given); float."""
    require_float(ttnn, x)
    x = ttnn.where(ttnn.isnan(x), float(nan or 0.0), x)
    if posinf is None and neginf is None:
        return ttnn.clamp(x, min=-LARGEST, max=LARGEST)
    x = ttnn.where(ttnn.isposinf(x), LARGEST if posinf is None else float(posinf), x)
    return ttnn.where(ttnn.isneginf(x), -LARGEST if neginf is None else float(neginf), x)


@lower(aten._to_copy.default)
def cast(ttnn, x, *, dtype=None, layout=None, device=None, pin_memory=None, non_blocking=False, memory_format=None):
    """x in another dtype: between floats, from booleans and integers to floats, from anything to booleans."""
    if dtype == torch.bool:
        return as_boolean(ttnn, ttnn.nez(x))
    if dtype in (torch.float32, torch.bfloat16):
        return ttnn.typecast(x, ttnn.bfloat16) if is_integer(ttnn, x) else x
    raise Unsupported(f"a cast to {dtype} stays on the host")
