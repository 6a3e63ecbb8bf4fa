"""Matrix products: ATen node → TTNN calls.

The core grid is always given: without it TTNN launches a second kernel for a fused activation. The compute kernel
config is always given too, since with a core grid and no config TTNN multiplies at its lowest fidelity. TTNN refuses
integers here, so their products stay on the host. A vector is a matrix of one row, which costs nothing in TILE layout;
as a column it would be moved.

In block shards a core multiplies what lies on it. What is free is how many tiles it takes at once: more are faster,
until the circular buffers find no room, of which TTNN is asked.
"""

import math

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.spec import Blocks
from tt_dynamo.lowering.memory import assigned, blocks_of, divisors, is_sharded
from tt_dynamo.lowering.registry import TTNN, Tensor, lower

# Tiles of a product's inner dimension that a core takes at once, where they do not lie on it already.
MOST_READ = 8
# The share of its rows that a core holds at once of a result that it writes interleaved.
SHARES = (1, 2, 4)


def activation_of(ttnn: TTNN, name):
    """TTNN's fused form of an activation of `operators.ACTIVATIONS`, exact where torch's is."""
    if name == "gelu":
        return ttnn.UnaryWithParam(ttnn.UnaryOpType.GELU, 0.0)  # 0.0: the accurate variant, not the lookup table
    if name == "gelu_tanh":
        return ttnn.UnaryWithParam(ttnn.UnaryOpType.GELU_TANH)
    return name


def _in_program_config(ttnn: TTNN, name):
    """The activation as program configurations hold it, None where there is none."""
    if not name:
        return None
    fused = activation_of(ttnn, name)
    return ttnn.UnaryWithParam(getattr(ttnn.UnaryOpType, fused.upper())) if isinstance(fused, str) else fused


def product_config(ttnn: TTNN):
    """How every product is computed: on all cores, with the precision that the options ask for."""
    return {"core_grid": ttnn.settings.core_grid, "compute_kernel_config": ttnn.settings.compute_kernel_config}


@lower(operators.linear)
def linear(ttnn: TTNN, x: Tensor, weight, bias=None, activation=""):
    """x [..., in] @ weight [in, out] + bias [out], with the activation on the result."""
    if isinstance(ttnn.memory, Blocks) or is_sharded(x):
        return _linear_in_blocks(ttnn, x, weight, bias, activation, _in_program_config(ttnn, activation))
    fused = {"activation": activation_of(ttnn, activation)} if activation else {}
    if bias is not None:
        fused["bias"] = bias
    return ttnn.linear(x, weight, **fused, **product_config(ttnn))


def _linear_in_blocks(ttnn: TTNN, x: Tensor, weight: Tensor, bias, activation, fused):
    """A product that reads block shards, or writes those that the compiler assigned, or both.

    x [..., in] in block shards or interleaved, weight [in, out]. fused: TTNN's form of the activation, or None. Where
    the compiler assigned nothing, the result lies in DRAM.
    """
    inner, columns = (math.ceil(size / ttnn.TILE_SIZE) for size in weight.shape[-2:])
    reads, writes = is_sharded(x), isinstance(ttnn.memory, Blocks)
    given = blocks_of(ttnn, x) if reads else ttnn.memory
    cores = ttnn.memory if writes else given
    if (given.columns, given.rows) != (cores.columns, cores.rows):
        raise Refused("ttnn.linear: reads and writes block shards on the same cores")
    width = math.ceil(columns / cores.columns)
    depths = divisors(given.width, given.width) if reads else divisors(inner, MOST_READ)
    shares = SHARES[:1] if writes else [share for share in SHARES if cores.height % share == 0]
    where = assigned(ttnn) or {"memory_config": ttnn.DRAM_MEMORY_CONFIG}
    operands = {} if bias is None else {"bias": bias}

    def multiply(candidate):
        height = candidate.get("out_block_h", cores.height)
        program = ttnn.MatmulMultiCoreReuseMultiCastProgramConfig(
            compute_with_storage_grid_size=ttnn.CoreCoord(cores.columns, cores.rows),
            **candidate,
            **_subblock(ttnn, height, width),
            per_core_M=cores.height,
            per_core_N=width,
            transpose_mcast=False,
            fused_activation=fused,
            fuse_batch=True,
        )
        how = {"program_config": program, "compute_kernel_config": ttnn.settings.compute_kernel_config}
        return ttnn.linear(x, weight, **operands, **where, **how)

    candidates = [
        {"in0_block_w": depth, **({} if share == 1 else {"out_block_h": cores.height // share, "out_block_w": width})}
        for share in shares
        for depth in depths
    ]
    return ttnn.choose(("linear", x, weight, bias, activation, ttnn.memory), candidates, multiply)


def _subblock(ttnn: TTNN, height, width):
    """The largest part of a core's result that its registers hold; several rows at once only of whole rows."""
    most = 4 if ttnn.settings.compute_kernel_config.fp32_dest_acc_en else 8
    columns = divisors(width, most)[0]
    rows = divisors(height, most // columns)[0] if columns == width else 1
    return {"out_subblock_h": rows, "out_subblock_w": columns}


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
