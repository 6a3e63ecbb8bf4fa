"""Elementwise arithmetic: ATen node → TTNN calls.

TTNN broadcasts as torch does. `passes/normalize/dtypes.py` has cast integers that meet floats, so operands here are
floats, or booleans as 0.0 and 1.0. Integer arithmetic is left to the host.
"""

from __future__ import annotations

import math

from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering.registry import lower

UNARY = {
    aten.abs.default: "abs",
    aten.acos.default: "acos",
    aten.acosh.default: "acosh",
    aten.asin.default: "asin",
    aten.asinh.default: "asinh",
    aten.atan.default: "atan",
    aten.atanh.default: "atanh",
    aten.cos.default: "cos",
    aten.cosh.default: "cosh",
    aten.deg2rad.default: "deg2rad",
    aten.erf.default: "erf",
    aten.erfc.default: "erfc",
    aten.exp.default: "exp",
    aten.exp2.default: "exp2",
    aten.expm1.default: "expm1",
    aten.log.default: "log",
    aten.log10.default: "log10",
    aten.log1p.default: "log1p",
    aten.log2.default: "log2",
    aten.neg.default: "neg",
    aten.rad2deg.default: "rad2deg",
    aten.reciprocal.default: "reciprocal",
    aten.rsqrt.default: "rsqrt",
    aten.sgn.default: "sign",
    aten.sign.default: "sign",
    aten.sin.default: "sin",
    aten.sinh.default: "sinh",
    aten.sqrt.default: "sqrt",
    aten.tan.default: "tan",
    aten.tanh.default: "tanh",
}

BINARY = {
    aten.atan2.default: "atan2",
    aten.div.Scalar: "divide",
    aten.div.Tensor: "divide",
    aten.hypot.default: "hypot",
    aten.logaddexp.default: "logaddexp",
    aten.logaddexp2.default: "logaddexp2",
    aten.maximum.default: "maximum",
    aten.minimum.default: "minimum",
    aten.mul.Scalar: "multiply",
    aten.mul.Tensor: "multiply",
}

# TTNN takes a number as the first operand of few functions; of the others these are the mirror images.
MIRRORED = {"add": "add", "subtract": "rsub", "multiply": "multiply", "divide": "rdiv"}

SUMS = {
    aten.add.Tensor: "add",
    aten.add.Scalar: "add",
    aten.sub.Tensor: "subtract",
    aten.sub.Scalar: "subtract",
}


def is_tensor(operand):
    return hasattr(operand, "layout")


def is_integer(ttnn, x):
    return x.dtype in (ttnn.int32, ttnn.uint32)


def require_float(ttnn, *operands):
    """Integers go through floats in places inside TTNN: refuse them here."""
    if any(is_tensor(x) and is_integer(ttnn, x) for x in operands):
        raise Unsupported("integer arithmetic stays on the host")


def lower_unary(table):
    """Register functions of one operand that are one TTNN call of the same meaning."""
    for target, name in table.items():
        lower(target, sharded=True)(_unary(name))


def _unary(name):
    def unary(ttnn, x):
        require_float(ttnn, x)
        return getattr(ttnn, name)(x)

    unary.__doc__ = f"{name} of each element of x, float."
    unary.__name__ = name
    return unary


def _call(ttnn, name, a, b):
    return getattr(ttnn, name)(a, b) if is_tensor(a) else getattr(ttnn, MIRRORED[name])(b, float(a))


def _binary(name):
    def binary(ttnn, a, b):
        require_float(ttnn, a, b)
        return _call(ttnn, name, a, b)

    binary.__doc__ = f"{name} of two broadcast operands, each a tensor or a number; float."
    binary.__name__ = name
    return binary


def _sum(name):
    def scaled_sum(ttnn, a, b, alpha=1):
        require_float(ttnn, a, b)
        if alpha != 1:
            b = ttnn.multiply(b, alpha) if is_tensor(b) else b * alpha
        return _call(ttnn, name, a, b)

    scaled_sum.__doc__ = f"{name} of two broadcast operands, each a tensor or a number, the second times alpha; float."
    scaled_sum.__name__ = name
    return scaled_sum


lower_unary(UNARY)
for _target, _name in BINARY.items():
    lower(_target, sharded=True)(_binary(_name))
for _target, _name in SUMS.items():
    lower(_target, sharded=True)(_sum(_name))


def raised(ttnn, x, exponent):
    """x to the power of a number.

    TTNN gives NaN for negative powers of zero, where eager torch has infinity: those are reciprocals here.
    """
    if exponent == 0:
        return ttnn.fill(x, 1.0)
    if exponent == 1:
        return x
    if exponent == 2:
        return ttnn.multiply(x, x)
    if exponent == 0.5:
        return ttnn.sqrt(x)
    if exponent == -0.5:
        return ttnn.rsqrt(x)
    if exponent < 0:
        return ttnn.reciprocal(raised(ttnn, x, -exponent))
    return ttnn.pow(x, int(exponent) if exponent == int(exponent) else exponent)


@lower(aten.pow.Tensor_Scalar)
def pow_number(ttnn, x, exponent):
    """x to the power of a number; float."""
    require_float(ttnn, x)
    if abs(exponent) > 1 << 15:
        raise Unsupported("TTNN tells odd exponents from even ones only up to 32767")
    return raised(ttnn, x, exponent)


@lower(aten.pow.Tensor_Tensor)
def pow_(ttnn, x, exponent):
    """x to the power of a tensor, both float.

    In float32, where TTNN knows the powers of zero; in bfloat16 it gives NaN for negative ones.
    """
    require_float(ttnn, x, exponent)
    x, exponent = (ttnn.typecast(operand, ttnn.float32) for operand in (x, exponent))
    return ttnn.typecast(ttnn.pow(x, exponent), ttnn.bfloat16)


@lower(aten.pow.Scalar)
def pow_of_number(ttnn, base, exponent):
    """A positive number to the power of a tensor."""
    require_float(ttnn, exponent)
    if base <= 0:
        raise Unsupported("TTNN has powers of positive numbers alone")
    return ttnn.rpow(exponent, float(base))


@lower(aten.addcmul.default, sharded=True)
def addcmul(ttnn, x, a, b, value=1):
    """x + value a b, broadcast; float."""
    require_float(ttnn, x, a, b)
    return ttnn.addcmul(x, a, b, value=float(value))


@lower(aten.addcdiv.default)
def addcdiv(ttnn, x, a, b, value=1):
    """x + value a / b, broadcast; float."""
    require_float(ttnn, x, a, b)
    return ttnn.addcdiv(x, a, b, value=float(value))


@lower(aten.lerp.Scalar, aten.lerp.Tensor)
def lerp(ttnn, x, end, weight):
    """x + weight (end - x), broadcast; weight a tensor or a number."""
    return ttnn.lerp(x, end, weight)


@lower(aten.copysign.Tensor)
def copysign(ttnn, x, sign):
    """The magnitude of x with the sign of another tensor, -0.0 counting as negative."""
    require_float(ttnn, x, sign)
    magnitude = ttnn.abs(x)
    return ttnn.where(ttnn.signbit(sign), ttnn.neg(magnitude), magnitude)


@lower(aten.copysign.Scalar)
def copysign_of_number(ttnn, x, sign):
    """The magnitude of x with the sign of a number, -0.0 counting as negative."""
    require_float(ttnn, x)
    magnitude = ttnn.abs(x)
    return ttnn.neg(magnitude) if math.copysign(1, sign) < 0 else magnitude


@lower(aten.angle.default)
def angle(ttnn, x):
    """The angle of real numbers on the complex plane: pi for negative ones, 0 for others, NaN for NaN."""
    require_float(ttnn, x)
    return ttnn.where(ttnn.isnan(x), x, ttnn.multiply(ttnn.ltz(x), math.pi))


@lower(aten.fmax.default)
def fmax(ttnn, a, b):
    """The larger of two elements, broadcast; of a number and a NaN the number."""
    require_float(ttnn, a, b)
    return ttnn.where(ttnn.isnan(a), b, ttnn.where(ttnn.isnan(b), a, ttnn.maximum(a, b)))


@lower(aten.fmin.default)
def fmin(ttnn, a, b):
    """The smaller of two elements, broadcast; of a number and a NaN the number."""
    require_float(ttnn, a, b)
    return ttnn.where(ttnn.isnan(a), b, ttnn.where(ttnn.isnan(b), a, ttnn.minimum(a, b)))


@lower(aten.clamp.default, sharded=True)
def clamp(ttnn, x, min=None, max=None):
    """x limited to [min, max], either of which may be absent.

    With one limit as a maximum or minimum: TTNN's clamp takes the largest float32 for the other, which is no infinity.
    """
    require_float(ttnn, x)
    if max is None:
        return ttnn.maximum(x, float(min))
    if min is None:
        return ttnn.minimum(x, float(max))
    if min > max:  # eager torch gives max everywhere
        return ttnn.minimum(ttnn.maximum(x, float(min)), float(max))
    return ttnn.clamp(x, min=float(min), max=float(max))


@lower(aten.clamp.Tensor)
def clamp_tensor(ttnn, x, min=None, max=None):
    """x limited to [min, max], tensors that broadcast, either of which may be absent."""
    require_float(ttnn, x, min, max)
    x = x if min is None else ttnn.maximum(x, min)
    return x if max is None else ttnn.minimum(x, max)


@lower(aten.clamp_min.default, sharded=True)
def clamp_min(ttnn, x, min):
    """x, at least min, a number."""
    return clamp(ttnn, x, min=min)


@lower(aten.clamp_max.default, sharded=True)
def clamp_max(ttnn, x, max):
    """x, at most max, a number."""
    return clamp(ttnn, x, max=max)


@lower(aten.clamp_min.Tensor)
def clamp_min_tensor(ttnn, x, min):
    """x, at least min, a tensor that broadcasts."""
    return clamp_tensor(ttnn, x, min=min)


@lower(aten.clamp_max.Tensor)
def clamp_max_tensor(ttnn, x, max):
    """x, at most max, a tensor that broadcasts."""
    return clamp_tensor(ttnn, x, max=max)


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
