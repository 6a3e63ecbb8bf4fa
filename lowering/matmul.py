"""Matrix products: ATen node → TTNN calls.

The core grid is always given: without it TTNN launches a second kernel for a fused activation. The compute kernel
config is always given too, since with a core grid and no config TTNN multiplies at its lowest fidelity. TTNN refuses
integers here, so their products stay on the host. A vector is a matrix of one row, which costs nothing in TILE layout;
as a column it would be moved.
"""

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering.registry import TTNN, Tensor, lower


def activation_of(ttnn: TTNN, name):
    """TTNN's fused form of an activation of `operators.ACTIVATIONS`, exact where torch's is."""
    if name == "gelu":
        return ttnn.UnaryWithParam(ttnn.UnaryOpType.GELU, 0.0)  # 0.0: the accurate variant, not the lookup table
    if name == "gelu_tanh":
        return ttnn.UnaryWithParam(ttnn.UnaryOpType.GELU_TANH)
    return name


def product_config(ttnn: TTNN):
    """How every product is computed: on all cores, with the precision that the options ask for."""
    return {"core_grid": ttnn.settings.core_grid, "compute_kernel_config": ttnn.settings.compute_kernel_config}


@lower(operators.linear)
def linear(ttnn: TTNN, x: Tensor, weight, bias=None, activation=""):
    """x [..., in] @ weight [in, out] + bias [out], with the activation on the result."""
    fused = {"activation": activation_of(ttnn, activation)} if activation else {}
    if bias is not None:
        fused["bias"] = bias
    return ttnn.linear(x, weight, **fused, **product_config(ttnn))


@lower(aten.matmul.default, aten.bmm.default)
def matmul(ttnn: TTNN, a, b):
    """a [..., m, k] @ b [..., k, n] with equal leading dimensions."""
    return ttnn.matmul(a, b, **product_config(ttnn))


def _row_product(ttnn: TTNN, vector: Tensor, matrix: Tensor):
    row = ttnn.reshape(vector, (1, *vector.shape))
    return ttnn.matmul(row, matrix, transpose_b=True, **product_config(ttnn))


@lower(aten.mv.default)
def mv(ttnn: TTNN, matrix: Tensor, vector: Tensor):
    """matrix [m, k] @ vector [k] → [m]."""
    return ttnn.reshape(_row_product(ttnn, vector, matrix), matrix.shape[:1])


@lower(aten.dot.default, aten.vdot.default)
def dot(ttnn: TTNN, a, b):
    """a [k] @ b [k] → a number."""
    return ttnn.reshape(_row_product(ttnn, a, ttnn.reshape(b, (1, *b.shape))), ())


def _plus(ttnn: TTNN, addend: Tensor, product, beta, alpha):
    """beta addend + alpha product; with beta 0, what stands in the addend counts for nothing, be it NaN."""
    if alpha != 1:
        product = ttnn.multiply(product, alpha)
    if beta == 0:
        return product
    if beta != 1:
        addend = ttnn.multiply(addend, beta)
    return ttnn.add(product, addend)


@lower(aten.addmm.default, aten.baddbmm.default)
def addmm(ttnn: TTNN, addend: Tensor, a, b, beta=1, alpha=1):
    """beta addend + alpha a @ b, of matrices or of batches of them; the addend broadcasts to the product."""
    return _plus(ttnn, addend, matmul(ttnn, a, b), beta, alpha)


@lower(aten.addmv.default)
def addmv(ttnn: TTNN, addend: Tensor, matrix: Tensor, vector: Tensor, beta=1, alpha=1):
    """beta addend + alpha matrix [m, k] @ vector [k]; addend [m] or a number."""
    return _plus(ttnn, addend, mv(ttnn, matrix, vector), beta, alpha)


@lower(aten.addbmm.default)
def addbmm(ttnn: TTNN, addend: Tensor, a, b, beta=1, alpha=1):
    """beta addend + alpha times the sum of a [batch, m, k] @ b [batch, k, n] over the batch, as one long product."""
    batch, m, k = a.shape
    a = ttnn.reshape(ttnn.permute(a, (1, 0, 2)), (m, batch * k))
    b = ttnn.reshape(b, (batch * k, b.shape[-1]))
    return _plus(ttnn, addend, matmul(ttnn, a, b), beta, alpha)
