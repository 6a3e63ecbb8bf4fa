"""Comparison, logic and choice: ATen node → TTNN calls. Booleans are bfloat16 0.0 and 1.0 on the device."""

import math

import torch

from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.spec import LARGEST
from tt_dynamo.lowering.elementwise import lower_calls, namesakes
from tt_dynamo.lowering.registry import TTNN, Tensor, is_integer, is_tensor, lower

PREDICATES = namesakes(aten.isinf, aten.isnan, aten.isneginf, aten.isposinf, aten.signbit)

lower_calls(PREDICATES)


def as_boolean(ttnn: TTNN, x: Tensor):
    """TTNN's comparisons answer 0 and 1 in the operand's dtype."""
    return x if x.dtype == ttnn.bfloat16 else ttnn.typecast(x, ttnn.bfloat16)


def _comparison(name):
    def compare(ttnn, a, b):
        """Two broadcast operands compared, the second a tensor or a number, as a boolean."""
        if is_tensor(b) and is_integer(ttnn, a) != is_integer(ttnn, b):
            raise Unsupported("integers are compared with floats on the host")
        if is_integer(ttnn, a):
            return as_boolean(ttnn, getattr(ttnn, name)(a, b if is_tensor(b) else _whole(b)))
        if a is b or (not is_tensor(b) and not math.isfinite(b)):
            return _compare_by_kind(ttnn, name, a, b)
        # The device holds both in bfloat16: so a number stays equal to the elements that were that number.
        return getattr(ttnn, name)(a, b if is_tensor(b) else torch.tensor(float(b)).bfloat16().item())

    return compare


def _whole(number):
    if number != int(number) or not -(1 << 31) <= number < 1 << 31:
        raise Unsupported(f"integers are compared with {number} on the host")
    return int(number)


def _compare_by_kind(ttnn: TTNN, name, a, b):
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


@lower(aten.logical_not.default)
def logical_not(ttnn: TTNN, x: Tensor):
    """Whether an element of x is zero."""
    return as_boolean(ttnn, ttnn.eqz(x))


lower(aten.bitwise_not.default, floats=True)(logical_not)  # of booleans


def _logic(name):
    def logic(ttnn, a, b):
        """Two broadcast operands joined, the second a tensor or a number: booleans, or whether elements are zero."""
        b = b if is_tensor(b) else ttnn.fill(a, float(b))
        a, b = (as_boolean(ttnn, ttnn.nez(x)) if is_integer(ttnn, x) else x for x in (a, b))
        return getattr(ttnn, name)(a, b)

    return logic


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    _packet = getattr(aten, _name)
    lower(_packet.Tensor, _packet.Scalar)(_comparison(_name))
for _name in ("and", "or", "xor"):
    _of_elements, _packet = _logic(f"logical_{_name}"), getattr(aten, f"bitwise_{_name}")
    lower(getattr(aten, f"logical_{_name}").default)(_of_elements)
    lower(_packet.Tensor, _packet.Scalar, floats=True)(_of_elements)  # of booleans


@lower(aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther, aten.where.Scalar)
def where(ttnn: TTNN, condition: Tensor, x, other):
    """An element of x where the condition holds, else of other; broadcast, each a tensor or a number.

    TTNN copies the bits of the element that it chooses, so that the other may be NaN, and integers are exact.
    """
    integers = [is_tensor(value) and is_integer(ttnn, value) for value in (x, other)]
    if all(integers):
        return ttnn.where(ttnn.typecast(condition, ttnn.int32), x, other)
    if any(integers):
        raise Unsupported("a choice between an integer and a float stays on the host")
    return ttnn.where(condition, *(value if is_tensor(value) else float(value) for value in (x, other)))


@lower(aten.nan_to_num.default, floats=True)
def nan_to_num(ttnn: TTNN, x: Tensor, nan=None, posinf=None, neginf=None):
    """x with numbers in place of NaN (0 unless given) and infinities (the largest numbers unless given); float."""
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
