"""Elementwise arithmetic and activations: ATen node → TTNN calls.

TTNN broadcasts as torch does. A float result of mixed operands takes the first operand's dtype, so operands are cast
where they differ. Integer arithmetic is left to the host here.
"""

from __future__ import annotations

from tt_dynamo.graph import Unsupported, aten
from tt_dynamo.lowering.registry import lower

UNARY = {
    aten.relu.default: "relu",
    aten.silu.default: "silu",
    aten.sigmoid.default: "sigmoid",
    aten.tanh.default: "tanh",
    aten.exp.default: "exp",
    aten.log.default: "log",
    aten.sqrt.default: "sqrt",
    aten.rsqrt.default: "rsqrt",
    aten.reciprocal.default: "reciprocal",
    aten.erf.default: "erf",
    aten.abs.default: "abs",
    aten.neg.default: "neg",
    aten.sin.default: "sin",
    aten.cos.default: "cos",
}

BINARY = {
    aten.mul.Tensor: "multiply",
    aten.mul.Scalar: "multiply",
    aten.div.Tensor: "divide",
    aten.div.Scalar: "divide",
}

SUMS = {
    aten.add.Tensor: "add",
    aten.add.Scalar: "add",
    aten.sub.Tensor: "subtract",
    aten.sub.Scalar: "subtract",
}


def is_tensor(operand):
    return hasattr(operand, "layout")


def require_float(ttnn, *operands):
    """Integers go through floats in places inside TTNN: refuse them here."""
    if any(is_tensor(x) and x.dtype in (ttnn.int32, ttnn.uint32) for x in operands):
        raise Unsupported("integer arithmetic stays on the host")


def _unary(name):
    def unary(ttnn, x):
        require_float(ttnn, x)
        return getattr(ttnn, name)(x)

    unary.__doc__ = f"{name} of each element of x, float."
    unary.__name__ = name
    return unary


def _binary(name):
    def binary(ttnn, a, b):
        require_float(ttnn, a, b)
        return getattr(ttnn, name)(a, b)

    binary.__doc__ = f"{name} of two broadcast operands, the second a tensor or a number; float."
    binary.__name__ = name
    return binary


def _sum(name):
    def scaled_sum(ttnn, a, b, alpha=1):
        require_float(ttnn, a, b)
        if alpha != 1:
            b = ttnn.multiply(b, alpha) if is_tensor(b) else b * alpha
        return getattr(ttnn, name)(a, b)

    scaled_sum.__doc__ = f"{name} of two broadcast operands, the second times alpha; float."
    scaled_sum.__name__ = name
    return scaled_sum


for _target, _name in UNARY.items():
    lower(_target)(_unary(_name))
for _target, _name in BINARY.items():
    lower(_target)(_binary(_name))
for _target, _name in SUMS.items():
    lower(_target)(_sum(_name))


@lower(aten.gelu.default)
def gelu(ttnn, x, approximate="none"):
    """Gaussian error linear unit, exact or by the tanh formula as torch's `approximate` says."""
    variant = ttnn.GeluVariant.Tanh if approximate == "tanh" else ttnn.GeluVariant.Accurate
    return ttnn.gelu(x, variant=variant)


@lower(aten.clamp.default)
def clamp(ttnn, x, min=None, max=None):
    """x limited to [min, max], either of which may be absent."""
    require_float(ttnn, x)
    return ttnn.clamp(x, min=min, max=max)


@lower(aten.clamp_min.default)
def clamp_min(ttnn, x, min):
    """x, at least min."""
    require_float(ttnn, x)
    return ttnn.clamp(x, min=min, max=None)
