"""Matrix products: ATen node → TTNN calls.

The core grid is always given: without it TTNN launches a second kernel for a fused activation. The compute kernel
config is always given too, since with a core grid and no config TTNN multiplies at its lowest fidelity. TTNN refuses
integers here, so their products stay on the host. A vector is a matrix of one row, which costs nothing in TILE layout;
as a column it would be moved.
"""

from __future__ import annotations

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
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


def _product(ttnn, a, b, **transposes):
    return ttnn.matmul(
        a,
        b,
        **transposes,
        core_grid=ttnn.settings.core_grid,
        compute_kernel_config=ttnn.settings.compute_kernel_config,
    )


@lower(aten.matmul.default, aten.bmm.default)
def matmul(ttnn, a, b):
    """a [..., m, k] @ b [..., k, n] with equal leading dimensions."""
    return _product(ttnn, a, b)


@lower(aten.mv.default)
def mv(ttnn, matrix, vector):
    """matrix [m, k] @ vector [k] → [m]."""
    rows, columns = matrix.shape
    row = _product(ttnn, ttnn.reshape(vector, (1, columns)), matrix, transpose_b=True)
    return ttnn.reshape(row, (rows,))


@lower(aten.dot.default, aten.vdot.default)
def dot(ttnn, a, b):
    """a [k] @ b [k] → a number."""
    a, b = (ttnn.reshape(x, (1, *x.shape)) for x in (a, b))
    return ttnn.reshape(_product(ttnn, a, b, transpose_b=True), ())


def _plus(ttnn, addend, product, beta, alpha):
    """beta addend + alpha product; with beta 0, what stands in the addend counts for nothing, be it NaN."""
    if alpha != 1:
        product = ttnn.multiply(product, alpha)
    if beta == 0:
        return product
    if beta != 1:
        addend = ttnn.multiply(addend, beta)
    return ttnn.add(product, addend)


@lower(aten.addmm.default, aten.baddbmm.default)
def addmm(ttnn, addend, a, b, beta=1, alpha=1):
    """beta addend + alpha a @ b, of matrices or of batches of them; the addend broadcasts to the product."""
    return _plus(ttnn, addend, _product(ttnn, a, b), beta, alpha)


@lower(aten.addmv.default)
def addmv(ttnn, addend, matrix, vector, beta=1, alpha=1):
    """beta addend + alpha matrix [m, k] @ vector [k]; addend [m] or a number."""
    return _plus(ttnn, addend, mv(ttnn, matrix, vector), beta, alpha)


@lower(aten.addbmm.default)
def addbmm(ttnn, addend, a, b, beta=1, alpha=1):
    """beta addend + alpha times the sum of a [batch, m, k] @ b [batch, k, n] over the batch, as one long product."""
    batch, m, k = a.shape
    a = ttnn.reshape(ttnn.permute(a, (1, 0, 2)), (m, batch * k))
    b = ttnn.reshape(b, (batch * k, b.shape[-1]))
    return _plus(ttnn, addend, _product(ttnn, a, b), beta, alpha)
