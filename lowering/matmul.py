"""Matrix products: ATen node → TTNN calls.

The core grid is always given: without it TTNN launches a second kernel for a fused activation. The compute kernel
config is always given too, since with a core grid and no config TTNN multiplies at its lowest fidelity. TTNN refuses
integers here, so their products stay on the host. A vector is a matrix of one row, which costs nothing in TILE layout;
as a column it would be moved.

A core of a grid multiplies rows of tiles by columns of tiles. What is free is how many it takes at once: more are
faster, until the circular buffers find no room, of which TTNN is asked. What it would choose itself is a candidate for
interleaved operands, and the one that is taken unless another is estimated to be faster.
"""

import math
from dataclasses import replace

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.spec import Blocks, Columns, divisors, tiles
from tt_dynamo.lowering import workarounds
from tt_dynamo.lowering.language.decode_products import is_row_in_shards, multiply_from_banks, placed, ways_from_banks
from tt_dynamo.lowering.memory import (
    assigned,
    assigned_dtype,
    banks_of,
    blocks_of,
    in_columns,
    is_in_columns,
    is_sharded,
    shard_width,
)
from tt_dynamo.lowering.registry import TTNN, Tensor, lower

# Tiles of a product's inner dimension that a core takes at once, where they do not lie on it already.
MOST_READ = 8
# The share of its rows that a core holds at once of a result that it writes interleaved.
SHARES = (1, 2, 4)
# Rows of tiles of which each core takes all, and columns of its own: those of a decode step.
FEW_ROWS = 2


def activation_of(ttnn: TTNN, name):
    """TTNN's fused form of an activation of `operators.ACTIVATIONS`, exact where torch's is and the option says so."""
    from_table = ttnn.settings.gelu == "FastLut"
    if name == "gelu" or (name == "gelu_tanh" and from_table):
        return ttnn.UnaryWithParam(ttnn.UnaryOpType.GELU, 1.0 if from_table else 0.0)
    if name == "gelu_tanh":
        return ttnn.UnaryWithParam(ttnn.UnaryOpType.GELU_TANH)
    return name


def product_config(ttnn: TTNN):
    """How every product is computed: on all cores, with the precision that the options ask for."""
    return {"core_grid": ttnn.settings.core_grid, "compute_kernel_config": ttnn.settings.compute_kernel_config}


@lower(operators.linear)
def linear(ttnn: TTNN, x: Tensor, weight, bias=None, activation=""):
    """x [..., in] @ weight [in, out] + bias [out], with the activation on the result."""
    if is_row_in_shards(ttnn, x, weight):
        return _linear_of_row(ttnn, x, weight, bias, activation)
    is_in_blocks = isinstance(ttnn.memory, Blocks) or is_sharded(x)
    find = _ways_in_blocks if is_in_blocks else _ways_interleaved
    cores, candidates = find(ttnn, x, weight)
    operands = {"bias": bias} if bias is not None else {}
    operands |= assigned_dtype(ttnn, x)
    operands |= assigned(ttnn) or ({"memory_config": ttnn.DRAM_MEMORY_CONFIG} if is_in_blocks else {})

    def multiply(candidate):
        if not candidate:
            return ttnn.linear(x, weight, **operands, **_as_ttnn_chooses(ttnn, activation))
        way = {name: value for name, value in candidate.items() if name != "interleaved"}
        where = {"memory_config": ttnn.L1_MEMORY_CONFIG} if "interleaved" in candidate else {}
        return ttnn.linear(x, weight, **{**operands, **where}, **_on_cores(ttnn, cores, activation, way))

    asked = ("linear", x, weight, bias, activation, ttnn.memory, ttnn.dtype)
    return ttnn.choose(asked, candidates, multiply, costed=True)


def _as_ttnn_chooses(ttnn: TTNN, activation):
    """The keywords of a product on all cores that TTNN shares among them."""
    fused = {"activation": activation_of(ttnn, activation)} if activation else {}
    precision = {"compute_kernel_config": ttnn.settings.weight_kernel_config}
    return {**fused, "core_grid": ttnn.settings.core_grid, **precision}


def _linear_of_row(ttnn: TTNN, x: Tensor, weight, bias, activation):
    """The same of one row of tiles, where it reads or writes width shards or its weight lies in DRAM shards."""
    operands = ({"bias": bias} if bias is not None else {}) | assigned_dtype(ttnn, x)
    inner, wide = tiles(tuple(weight.shape))
    grid, lies = ttnn.settings.grid_size, ttnn.memory if isinstance(ttnn.memory, Columns) else None
    if banks_of(weight):
        candidates = ways_from_banks(ttnn, x, weight)
    else:
        on = [grid, *([(lies.columns, lies.rows)] if lies else [])]
        shared = divisors(shard_width(x) // ttnn.TILE_SIZE, MOST_READ)[:1] if is_in_columns(x) else []  # none is cut
        depths = dict.fromkeys([*divisors(inner, MOST_READ)[:2], *shared])
        candidates = [{}, *({"in0_block_w": d, "mcast_in0": True, "cores": cores} for cores in on for d in depths)]

    def multiply(candidate):
        if banks_of(weight):
            fused = fused_activation(ttnn, activation_of(ttnn, activation))
            return multiply_from_banks(ttnn, x, weight, fused, candidate, **operands)
        if not candidate:
            where = {"memory_config": ttnn.DRAM_MEMORY_CONFIG}
            return placed(ttnn, ttnn.linear(x, weight, **operands, **where, **_as_ttnn_chooses(ttnn, activation)))
        *blocks, (_, given) = candidate.items()
        on_cores = Blocks(given[0], given[1], 1, math.ceil(wide / math.prod(given)))
        is_placed = lies is not None and (lies.columns, lies.rows) == given
        where = in_columns(ttnn, lies) if is_placed else ttnn.DRAM_MEMORY_CONFIG
        fused = _on_cores(ttnn, on_cores, activation, dict(blocks))
        return placed(ttnn, ttnn.linear(x, weight, **operands, memory_config=where, **fused))

    asked = ("linear", x, weight, bias, activation, ttnn.memory, ttnn.dtype)
    return ttnn.choose(asked, candidates, multiply, costed=True)


def _ways_interleaved(ttnn: TTNN, x: Tensor, weight: Tensor):
    """The cores for operands that lie interleaved, and the candidates, of which the first is TTNN's choice."""
    columns, rows = ttnn.settings.grid_size
    high, (inner, wide) = tiles(x.shape)[0], tiles(weight.shape)
    depths = divisors(inner, MOST_READ)[:2] if inner > MOST_READ else []  # shorter ones gain nothing
    if banks := banks_of(weight):
        columns = workarounds.columns_of_cores(columns, banks)
        cores = Blocks(columns, rows, math.ceil(high / rows), math.ceil(wide / columns))
        return cores, _depths_and_shares(cores, divisors(inner, MOST_READ)[:3], SHARES)
    if high <= FEW_ROWS:  # all rows on each core, which has columns of its own
        cores = Blocks(columns, rows, high, math.ceil(wide / (columns * rows)))
        return cores, [{}, *({"in0_block_w": depth, "mcast_in0": True} for depth in depths)]
    cores = Blocks(columns, rows, math.ceil(high / rows), math.ceil(wide / columns))
    return cores, [{}, *_depths_and_shares(cores, depths, SHARES[:2])]


def _ways_in_blocks(ttnn: TTNN, x: Tensor, weight: Tensor):
    """The cores of a product that reads block shards, writes those that the compiler assigned, or both; candidates."""
    inner, wide = tiles(weight.shape)
    reads, writes = is_sharded(x), isinstance(ttnn.memory, Blocks)
    given = blocks_of(ttnn, x) if reads else ttnn.memory
    cores = ttnn.memory if writes else given
    if (given.columns, given.rows) != (cores.columns, cores.rows):
        raise Refused("ttnn.linear: reads and writes block shards on the same cores")
    if banks := banks_of(weight):
        workarounds.check_columns_of_cores(ttnn.settings.grid_size[0], banks, cores.columns)
    cores = replace(cores, width=math.ceil(wide / cores.columns))
    depths = divisors(given.width, given.width) if reads else divisors(inner, MOST_READ)
    ways = _depths_and_shares(cores, depths, SHARES[:1] if writes else SHARES)
    if writes and ttnn.memory.or_interleaved:  # of which a core need not hold all at once
        ways += [{**way, "interleaved": True} for way in _depths_and_shares(cores, depths, SHARES[1:])]
    return cores, ways


def _depths_and_shares(cores: Blocks, depths, shares):
    """Candidates: tiles of the inner dimension at once, and the share of a core's rows that it holds at once."""
    return [
        {
            "in0_block_w": depth,
            **({} if share == 1 else {"out_block_h": cores.height // share, "out_block_w": cores.width}),
        }
        for share in shares
        if cores.height % share == 0
        for depth in depths
    ]


def _on_cores(ttnn: TTNN, cores: Blocks, activation, candidate):
    """The keywords of a product of which each core computes height x width tiles."""
    size = subblock(ttnn, candidate.get("out_block_h", cores.height), cores.width)
    program = program_config(ttnn, cores, activation_of(ttnn, activation), candidate, size)
    return {"program_config": program, "compute_kernel_config": ttnn.settings.weight_kernel_config}


def program_config(ttnn: TTNN, cores: Blocks, activation, candidate, subblock_size):
    """How each core computes height x width tiles of a product; in one dimension where it is to send in0 to all.

    activation: as `ttnn.linear` takes it.
    """
    activation = fused_activation(ttnn, activation)
    one_dimension = "mcast_in0" in candidate
    kind = (
        ttnn.MatmulMultiCoreReuseMultiCast1DProgramConfig
        if one_dimension
        else ttnn.MatmulMultiCoreReuseMultiCastProgramConfig
    )
    return kind(
        compute_with_storage_grid_size=ttnn.CoreCoord(cores.columns, cores.rows),
        **candidate,
        **subblock_size,
        per_core_M=cores.height,
        per_core_N=cores.width,
        **({} if one_dimension else {"transpose_mcast": False}),
        fused_activation=activation,
        fuse_batch=True,
    )


def fused_activation(ttnn: TTNN, activation):
    """An activation as a program config holds it; None where there is none. activation: as `ttnn.linear` takes it."""
    if isinstance(activation, str):
        return ttnn.UnaryWithParam(getattr(ttnn.UnaryOpType, activation.upper())) if activation else None
    return activation


def subblock(ttnn: TTNN, height, width, operation="ttnn.linear"):
    """The largest part of a core's result that its registers hold; several rows at once only of whole rows."""
    usual = ttnn.settings.weight_kernel_config.fp32_dest_acc_en
    most = 4 if ttnn.settings.config(operation).get("fp32_accumulation", usual) else 8
    columns = divisors(width, most)[0]
    rows = divisors(height, most // columns)[0] if columns == width else 1
    return {"out_subblock_h": rows, "out_subblock_w": columns}


@lower(aten.matmul.default, aten.bmm.default)
def matmul(ttnn: TTNN, a, b):
    """a [..., m, k] @ b [..., k, n] with equal leading dimensions."""
    return ttnn.matmul(a, b, **product_config(ttnn))


@lower(operators.transposed_matmul)
def transposed_matmul(ttnn: TTNN, a, b, transpose_a, transpose_b, bias=None, activation=""):
    """a [..., m, k] @ b [..., k, n] + bias [n], with the activation; TTNN's kernel transposes, or one before."""
    turned = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    operands = {"bias": bias} if bias is not None else {}

    # Of two activations, perhaps, as linear layers are not: with the precision of products.
    is_plain = not (operands or activation)
    call = ttnn.matmul if is_plain else ttnn.linear

    def multiply(way):
        options = product_config(ttnn) if is_plain else _as_ttnn_chooses(ttnn, activation)
        if way == "transposed before":
            left, right = (
                ttnn.transpose(x, -2, -1) if moves else x for x, moves in zip((a, b), turned.values(), strict=True)
            )
            return call(left, right, **operands, **options)
        if way != "all cores":
            del options["core_grid"]
        return call(a, b, **operands, **turned, **options)

    asked = ("transposed_matmul", a, b, transpose_a, transpose_b, bias, activation)
    return ttnn.choose(asked, ("all cores", "those that TTNN takes", "transposed before"), multiply)


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
