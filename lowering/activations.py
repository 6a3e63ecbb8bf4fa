"""Activations, and the derivatives that TTNN has whole: ATen node → TTNN calls; float."""

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering.elementwise import lower_calls, namesakes
from tt_dynamo.lowering.registry import TTNN, Tensor, lower

UNARY = namesakes(
    aten.hardsigmoid, aten.hardswish, aten.log_sigmoid, aten.mish, aten.relu, aten.selu, aten.sigmoid, aten.silu,
)  # fmt: skip

lower_calls({**UNARY, **namesakes(aten.celu, aten.hardtanh, aten.leaky_relu, aten.threshold)})


def _variant(ttnn: TTNN, approximate):
    return ttnn.GeluVariant.Tanh if approximate == "tanh" else ttnn.GeluVariant.Accurate


@lower(aten.gelu.default, sharded=True)
def gelu(ttnn: TTNN, x: Tensor, approximate="none"):
    """Gaussian error linear unit, exact or by the tanh formula as torch's `approximate` says.

    Source: Hendrycks & Gimpel 2016, https://arxiv.org/abs/1606.08415
    """
    return ttnn.gelu(x, variant=_variant(ttnn, approximate))


@lower(aten.gelu_backward.default)
def gelu_backward(ttnn: TTNN, grad: Tensor, x: Tensor, approximate="none"):
    """grad times the derivative of gelu at x."""
    return ttnn.gelu_bw(grad, x, variant=_variant(ttnn, approximate))[0]


@lower(aten.elu.default, sharded=True)
def elu(ttnn: TTNN, x: Tensor, alpha=1, scale=1, input_scale=1):
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


@lower(aten._prelu_kernel.default)
def prelu(ttnn: TTNN, x: Tensor, weight: Tensor):
    """x where x >= 0, weight x elsewhere; weight broadcasts."""
    return ttnn.where(ttnn.ltz(x), ttnn.multiply(x, weight), x)


@lower(aten.softplus.default)
def softplus(ttnn: TTNN, x: Tensor, beta=1, threshold=20):
    """log(1 + exp(beta x)) / beta, and x where beta x > threshold.

    TTNN's gives in bfloat16 0 for all beta x < -5, where it is up to 0.0067: that one in float32, or, where the
    threshold is beyond what bfloat16 tells apart, relu(x) + log(1 + exp(-|x|)) in one call.
    """
    if beta == 1 and threshold >= 8:
        unary, steps = ttnn.UnaryOpType, ("ABS", "NEG", "EXP", "LOG1P")
        rest = [ttnn.UnaryWithParam(getattr(unary, step)) for step in steps]
        relu = [ttnn.UnaryWithParam(unary.RELU)]
        return ttnn.add(x, x, input_tensor_a_activations=relu, input_tensor_b_activations=rest)
    x = ttnn.softplus(ttnn.typecast(x, ttnn.float32), beta=float(beta), threshold=float(threshold))
    return ttnn.typecast(x, ttnn.bfloat16)


@lower(aten.log_sigmoid_forward.default)
def log_sigmoid_forward(ttnn: TTNN, x: Tensor):
    """log(1 / (1 + exp(-x))), and exp(-|x|), which its derivative reads."""
    return ttnn.log_sigmoid(x), ttnn.exp(ttnn.neg(ttnn.abs(x)))


@lower(aten.logit.default, floats=True)
def logit(ttnn: TTNN, x: Tensor, eps=None):
    """log(x / (1 - x)), x first limited to [eps, 1 - eps] where eps is given."""
    if eps is not None and eps > 0.5:
        raise Unsupported("logit limited to an interval whose ends are the wrong way round stays on the host")
    return ttnn.logit(x, eps=eps)


@lower(operators.snake, sharded=True)
def snake(ttnn: TTNN, x: Tensor, frequency: Tensor, denominator: Tensor):
    """x + sin²(frequency x) / denominator; x [..., rows, channels], the others [..., 1, channels].

    TTNN rounds once. Its sine ends at |frequency x| = 10^5, where bfloat16 numbers are many waves apart.

    Source: Ziyin, Hartwig & Ueda 2020, https://arxiv.org/abs/2006.08195
    """
    return ttnn.snake_beta(x, frequency, denominator)
