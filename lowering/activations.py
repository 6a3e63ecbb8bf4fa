"""Activations, and the derivatives that TTNN has whole: ATen node → TTNN calls; float."""

from __future__ import annotations

from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering.elementwise import lower_unary, require_float
from tt_dynamo.lowering.registry import lower

UNARY = {
    aten.hardsigmoid.default: "hardsigmoid",
    aten.hardswish.default: "hardswish",
    aten.log_sigmoid.default: "log_sigmoid",
    aten.mish.default: "mish",
    aten.relu.default: "relu",
    aten.selu.default: "selu",
    aten.sigmoid.default: "sigmoid",
    aten.silu.default: "silu",
}

lower_unary(UNARY)


def _variant(ttnn, approximate):
    return ttnn.GeluVariant.Tanh if approximate == "tanh" else ttnn.GeluVariant.Accurate


@lower(aten.gelu.default, sharded=True)
def gelu(ttnn, x, approximate="none"):
    """Gaussian error linear unit, exact or by the tanh formula as torch's `approximate` says.

    Source: Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415
    """
    return ttnn.gelu(x, variant=_variant(ttnn, approximate))


@lower(aten.gelu_backward.default)
def gelu_backward(ttnn, grad, x, approximate="none"):
    """grad times the derivative of gelu at x."""
    (result,) = ttnn.gelu_bw(grad, x, variant=_variant(ttnn, approximate))
    return result


@lower(aten.elu.default, sharded=True)
def elu(ttnn, x, alpha=1, scale=1, input_scale=1):
    """scale x where x > 0, scale alpha (exp(input_scale x) - 1) elsewhere; torch makes selu and celu of it.

    Source: Clevert et al. 2015, https://arxiv.org/abs/1511.07289
    """
    if input_scale == 1 and scale == 1:
        return ttnn.elu(x, alpha=float(alpha))
    if input_scale == 1:
        return ttnn.selu(x, scale=float(scale), alpha=float(alpha))
    if scale == 1 and alpha and abs(alpha * input_scale - 1) < 1e-6:
        return ttnn.celu(x, alpha=float(alpha))
    raise Unsupported("TTNN has elu, selu and celu, and none with all three factors")


@lower(aten.celu.default)
def celu(ttnn, x, alpha=1.0):
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1))."""
    return ttnn.celu(x, alpha=float(alpha))


@lower(aten.leaky_relu.default, sharded=True)
def leaky_relu(ttnn, x, negative_slope=0.01):
    """x where x > 0, negative_slope x elsewhere."""
    return ttnn.leaky_relu(x, negative_slope=float(negative_slope))


@lower(aten._prelu_kernel.default)
def prelu(ttnn, x, weight):
    """x where x >= 0, weight x elsewhere; weight broadcasts."""
    return ttnn.where(ttnn.ltz(x), ttnn.multiply(x, weight), x)


@lower(aten.hardtanh.default, sharded=True)
def hardtanh(ttnn, x, min_val=-1, max_val=1):
    """x limited to [min_val, max_val]."""
    require_float(ttnn, x)
    return ttnn.hardtanh(x, min_val=float(min_val), max_val=float(max_val))


@lower(aten.threshold.default)
def threshold(ttnn, x, threshold, value):
    """x where x > threshold, else value."""
    require_float(ttnn, x)
    return ttnn.threshold(x, float(threshold), float(value))


@lower(aten.softplus.default)
def softplus(ttnn, x, beta=1, threshold=20):
    """log(1 + exp(beta x)) / beta, and x where beta x > threshold.

    In float32: in bfloat16 TTNN's gives 0 for all beta x < -5, where it is up to 0.0067.
    """
    x = ttnn.softplus(ttnn.typecast(x, ttnn.float32), beta=float(beta), threshold=float(threshold))
    return ttnn.typecast(x, ttnn.bfloat16)


@lower(aten.log_sigmoid_forward.default)
def log_sigmoid_forward(ttnn, x):
    """log(1 / (1 + exp(-x))), and exp(-|x|), which its derivative reads."""
    return ttnn.log_sigmoid(x), ttnn.exp(ttnn.neg(ttnn.abs(x)))


@lower(aten.logit.default)
def logit(ttnn, x, eps=None):
    """log(x / (1 - x)), x first limited to [eps, 1 - eps] where eps is given."""
    require_float(ttnn, x)
    if eps is not None and eps > 0.5:
        raise Unsupported("logit limited to an interval whose ends are the wrong way round stays on the host")
    return ttnn.logit(x, eps=eps)
