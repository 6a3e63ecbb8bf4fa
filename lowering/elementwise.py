"""Elementwise arithmetic: ATen node → TTNN calls.

TTNN broadcasts as torch does. `passes/normalize/dtypes.py` has cast integers that meet floats, so operands here are
floats, or booleans as 0.0 and 1.0. Integer arithmetic is left to the host.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering.memory import assigned, assigned_dtype
from tt_dynamo.lowering.registry import TTNN, Tensor, is_tensor, lower


def namesakes(*packets: Any) -> dict[Any, str]:
    """Operations whose TTNN call has their name."""
    return {packet.default: packet.__name__ for packet in packets}


UNARY = namesakes(
    aten.abs, aten.acos, aten.acosh, aten.asin, aten.asinh, aten.atan, aten.atanh, aten.ceil, aten.cos, aten.cosh,
    aten.deg2rad, aten.erf, aten.erfc, aten.exp, aten.exp2, aten.expm1, aten.floor, aten.frac, aten.log, aten.log10,
    aten.log1p, aten.log2, aten.neg, aten.rad2deg, aten.reciprocal, aten.round, aten.rsqrt, aten.sign, aten.sin,
    aten.sinh, aten.sqrt, aten.tan, aten.tanh, aten.trunc,
)  # fmt: skip
UNARY[aten.sgn.default] = "sign"
BINARY = namesakes(aten.atan2, aten.hypot, aten.logaddexp, aten.logaddexp2, aten.maximum, aten.minimum)
TERNARY = {aten.lerp.Scalar: "lerp", aten.lerp.Tensor: "lerp", **namesakes(aten.addcdiv)}

# TTNN takes a number as the first operand of few functions; of the others these are the mirror images.
ARITHMETIC = {
    aten.add: ("add", "add"),
    aten.sub: ("subtract", "rsub"),
    aten.mul: ("multiply", "multiply"),
    aten.div: ("divide", "rdiv"),
}


def lower_calls(calls: dict[Any, str]) -> None:
    """Register operations of floats that are one TTNN call of the same tensors, with numbers of the same names."""
    for target, name in calls.items():
        lower(target, sharded=True, floats=True)(_one_call(name, target._schema.arguments))


def _one_call(name: str, arguments: Sequence[Any]) -> Callable[..., Any]:
    numbers = [argument for argument in arguments if str(argument.type) != "Tensor"]
    defaults = {number.name: number.default_value for number in numbers if number.has_default_value()}
    kinds = {number.name: int if str(number.type) == "int" else float for number in numbers}
    tensors = len(arguments) - len(numbers)

    def call(ttnn: TTNN, *operands: Any, **keywords: Any) -> Any:
        """The function of each element of broadcast operands; float."""
        given = {**defaults, **dict(zip(kinds, operands[tensors:], strict=False)), **keywords}
        return getattr(ttnn, name)(*operands[:tensors], **{key: kinds[key](given[key]) for key in given})

    call.__name__ = name
    return call


def _arithmetic(name: str, mirrored: str) -> Callable[..., Any]:
    def arithmetic(ttnn: TTNN, a, b, alpha=1):
        """Arithmetic of two broadcast operands, each a tensor or a number, the second times alpha; float."""
        if alpha != 1:
            b = ttnn.multiply(b, alpha) if is_tensor(b) else b * alpha
        where = assigned(ttnn) | assigned_dtype(ttnn, a if is_tensor(a) else b)
        return getattr(ttnn, name)(a, b, **where) if is_tensor(a) else getattr(ttnn, mirrored)(b, float(a), **where)

    arithmetic.__name__ = name
    return arithmetic


lower_calls({**UNARY, **BINARY, **TERNARY, aten.round.decimals: "round"})
for _packet, _names in ARITHMETIC.items():
    lower(_packet.Tensor, _packet.Scalar, sharded=True, floats=True)(_arithmetic(*_names))


@lower(operators.activated_product, sharded=True, floats=True)
def activated_product(ttnn: TTNN, x: Tensor, y: Tensor, activation):
    """The activation of x, times y; float."""
    fused = [ttnn.UnaryWithParam(getattr(ttnn.UnaryOpType, activation.upper()))]
    return ttnn.multiply(x, y, input_tensor_a_activations=fused, **assigned(ttnn), **assigned_dtype(ttnn, x))


@lower(operators.scaled_sum, sharded=True, floats=True)
def scaled_sum(ttnn: TTNN, x: Tensor, y: Tensor, scale):
    """(x + y) * scale; float."""
    fused = [ttnn.UnaryWithParam(ttnn.UnaryOpType.MUL_UNARY_SFPU, float(scale))]
    return ttnn.add(x, y, activations=fused, **assigned(ttnn), **assigned_dtype(ttnn, x))


@lower(aten.addcmul.default, sharded=True, floats=True)
def addcmul(ttnn: TTNN, x: Tensor, a: Tensor, b: Tensor, value=1):
    """x + value * a * b of broadcast operands; float."""
    return ttnn.addcmul(x, a, b, value=float(value), **assigned(ttnn))


@lower(aten.pow.Tensor_Scalar, floats=True)
def pow_number(ttnn: TTNN, x: Tensor, exponent):
    """x to the power of a number; float.

    TTNN gives NaN for negative powers of zero, where eager torch has infinity: those are reciprocals here.
    """
    if abs(exponent) > 1 << 15:
        raise Unsupported("TTNN tells odd exponents from even ones only up to 32767")
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
        return ttnn.reciprocal(pow_number(ttnn, x, -exponent))
    return ttnn.pow(x, int(exponent) if exponent == int(exponent) else exponent)


@lower(aten.pow.Tensor_Tensor, floats=True)
def pow_(ttnn: TTNN, x: Tensor, exponent):
    """x to the power of a tensor: in float32, where TTNN knows the powers of zero; its bfloat16 gives NaN for some."""
    x, exponent = (ttnn.typecast(operand, ttnn.float32) for operand in (x, exponent))
    return ttnn.typecast(ttnn.pow(x, exponent), ttnn.bfloat16)


@lower(aten.pow.Scalar, floats=True)
def pow_of_number(ttnn: TTNN, base, exponent):
    """A positive number to the power of a tensor."""
    if base <= 0:
        raise Unsupported("TTNN has powers of positive numbers alone")
    return ttnn.rpow(exponent, float(base))


@lower(aten.copysign.Tensor, aten.copysign.Scalar, floats=True)
def copysign(ttnn: TTNN, x: Tensor, sign):
    """The magnitude of x with the sign of a tensor or a number, -0.0 counting as negative."""
    magnitude = ttnn.abs(x)
    if is_tensor(sign):
        return ttnn.where(ttnn.signbit(sign), ttnn.neg(magnitude), magnitude)
    return ttnn.neg(magnitude) if math.copysign(1, sign) < 0 else magnitude


@lower(aten.angle.default, floats=True)
def angle(ttnn: TTNN, x: Tensor):
    """The angle of real numbers on the complex plane: pi for negative ones, 0 for others, NaN for NaN."""
    return ttnn.where(ttnn.isnan(x), x, ttnn.multiply(ttnn.ltz(x), math.pi))


@lower(aten.fmax.default, floats=True)
def fmax(ttnn: TTNN, a, b):
    """The larger of two elements, broadcast; of a number and a NaN the number."""
    return ttnn.where(ttnn.isnan(a), b, ttnn.where(ttnn.isnan(b), a, ttnn.maximum(a, b)))


@lower(aten.fmin.default, floats=True)
def fmin(ttnn: TTNN, a, b):
    """The smaller of two elements, broadcast; of a number and a NaN the number."""
    return ttnn.where(ttnn.isnan(a), b, ttnn.where(ttnn.isnan(b), a, ttnn.minimum(a, b)))


@lower(aten.clamp.default, aten.clamp.Tensor, sharded=True, floats=True)
def clamp(ttnn: TTNN, x: Tensor, min=None, max=None):
    """x limited to [min, max], numbers or tensors that broadcast, either of which may be absent.

    With one limit as a maximum or minimum: TTNN's clamp takes the largest float32 for the other, which is no infinity.
    With limits the wrong way round as both: eager torch gives max everywhere.
    """
    min, max = (limit if limit is None or is_tensor(limit) else float(limit) for limit in (min, max))
    if isinstance(min, float) and isinstance(max, float) and min <= max:
        return ttnn.clamp(x, min=min, max=max)
    x = x if min is None else ttnn.maximum(x, min)
    return x if max is None else ttnn.minimum(x, max)


@lower(aten.div.Tensor_mode, aten.div.Scalar_mode, floats=True)
def divide_rounded(ttnn: TTNN, a, b, rounding_mode=None):
    """a / b rounded towards zero ("trunc"), down ("floor") or not at all; b a tensor or a number.

    The quotient is float32 until it is rounded: 764 / 255 = 2.996 would be 3.0 in bfloat16 before it is rounded down.
    """
    if rounding_mode is None or (rounding_mode == "floor" and not is_tensor(b) and b == 0):
        return ttnn.divide(a, b)  # by zero, eager torch rounds nothing
    quotient = ttnn.divide(a, b, dtype=ttnn.float32)
    rounded = ttnn.typecast(getattr(ttnn, rounding_mode)(quotient), ttnn.bfloat16)
    if rounding_mode == "trunc":
        return rounded
    return ttnn.add(rounded, ttnn.subtract(a, a))  # eager torch rounds an infinity down to NaN


@lower(aten.remainder.Tensor, aten.remainder.Scalar, aten.remainder.Scalar_Tensor, floats=True)
def remainder(ttnn: TTNN, a, b):
    """What is left of a / b rounded down, with the sign of b; either a tensor or a number."""
    a = a if is_tensor(a) else ttnn.fill(b, float(a))
    return ttnn.remainder(a, b if is_tensor(b) else float(b))


@lower(aten.fmod.Tensor, aten.fmod.Scalar, floats=True)
def fmod(ttnn: TTNN, a, b):
    """What is left of a / b rounded towards zero, with the sign of a; b a tensor or a number."""
    return ttnn.fmod(a, b if is_tensor(b) else float(b))
