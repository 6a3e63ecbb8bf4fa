"""Matrix products: ATen node → TTNN calls.

The core grid is always given: without it TTNN launches a second kernel for a fused activation. The compute kernel
config is always given too, since with a core grid and no config TTNN multiplies at its lowest fidelity.
"""

from __future__ import annotations

from tt_dynamo import operators
from tt_dynamo.graph import aten
from tt_dynamo.lowering.registry import lower


def activation_of(ttnn, name):
    """TTNN's fused form of an activation of `operators.ACTIVATIONS`, exact where torch's is."""
    if name == "gelu":
        return ttnn.UnaryWithParam(ttnn.UnaryOpType.GELU, 0.0)  # 0.0: the accurate variant, not the lookup table
    if name == "gelu_tanh":
        return ttnn.UnaryWithParam(ttnn.UnaryOpType.GELU_TANH)
    return name


@lower(operators.linear)
def linear(ttnn, x, weight, bias=None, activation=""):
    """x [..., in] @ weight [in, out] + bias [out], with the activation on the result."""
    fused = {"activation": activation_of(ttnn, activation)} if activation else {}
    if bias is not None:
        fused["bias"] = bias
    return ttnn.linear(
        x,
        weight,
        **fused,
        core_grid=ttnn.settings.core_grid,
        compute_kernel_config=ttnn.settings.compute_kernel_config,
    )


@lower(aten.matmul.default, aten.bmm.default)
def matmul(ttnn, a, b):
    """a [..., m, k] @ b [..., k, n] with equal leading dimensions."""
    return ttnn.matmul(
        a, b, core_grid=ttnn.settings.core_grid, compute_kernel_config=ttnn.settings.compute_kernel_config
    )
