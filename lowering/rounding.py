"""Rounding, division to whole numbers and what is left over: ATen node → TTNN calls; float."""

from __future__ import annotations

from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering.elementwise import is_tensor, lower_unary, require_float
from tt_dynamo.lowering.registry import lower

UNARY = {
    aten.ceil.default: "ceil",
    aten.floor.default: "floor",
    aten.frac.default: "frac",
    aten.round.default: "round",
    aten.trunc.default: "trunc",
}

lower_unary(UNARY)


@lower(aten.round.decimals)
def round_decimals(ttnn, x, decimals):
    """x to so many decimals, ties to even; to tens, hundreds … where decimals is negative."""
    require_float(ttnn, x)
    return ttnn.round(x, decimals=decimals)


@lower(aten.div.Tensor_mode, aten.div.Scalar_mode)
def divide_rounded(ttnn, a, b, rounding_mode=None):
    """a / b rounded towards zero ("trunc"), down ("floor") or not at all; b a tensor or a number.

    The quotient is float32 until it is rounded: 764 / 255 = 2.996 would be 3.0 in bfloat16 before it is rounded down.
    """
    require_float(ttnn, a, b)
    if rounding_mode is None or (rounding_mode == "floor" and not is_tensor(b) and b == 0):
        return ttnn.divide(a, b)  # by zero, eager torch rounds nothing
    quotient = ttnn.divide(a, b, dtype=ttnn.float32)
    rounded = ttnn.typecast(getattr(ttnn, rounding_mode)(quotient), ttnn.bfloat16)
    if rounding_mode == "trunc":
        return rounded
    return ttnn.add(rounded, ttnn.subtract(a, a))  # eager torch rounds an infinity down to NaN


@lower(aten.floor_divide.default, aten.floor_divide.Scalar)
def floor_divide(ttnn, a, b):
    """a / b rounded down; b a tensor or a number."""
    return divide_rounded(ttnn, a, b, rounding_mode="floor")


@lower(aten.remainder.Tensor, aten.remainder.Scalar)
def remainder(ttnn, a, b):
    """What is left of a / b rounded down, with the sign of b; b a tensor or a number."""
    require_float(ttnn, a, b)
    return ttnn.remainder(a, b if is_tensor(b) else float(b))


@lower(aten.remainder.Scalar_Tensor)
def remainder_of_number(ttnn, a, b):
    """The same with a number as the dividend."""
    require_float(ttnn, b)
    return ttnn.remainder(ttnn.fill(b, float(a)), b)


@lower(aten.fmod.Tensor, aten.fmod.Scalar)
def fmod(ttnn, a, b):
    """What is left of a / b rounded towards zero, with the sign of a; b a tensor or a number."""
    require_float(ttnn, a, b)
    return ttnn.fmod(a, b if is_tensor(b) else float(b))
