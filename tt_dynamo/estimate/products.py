"""Device time of matrix products, of which in0 [..., m, k] is multiplied by in1 [..., k, n]; sizes in tiles.

Which cores compute what follows from the program configuration, or, where there is none, from the shape as TTNN would
choose. A block is `in0_block_w` columns of in0 at once; p is the time of one tile product.
"""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from tt_dynamo.estimate.chip import Chip, Cost
from tt_dynamo.estimate.kernels import stream
from tt_dynamo.estimate.tensor import Call, Tensor, ceil_div

NARROW = 8  # TTNN's default multiplies in one dimension where rows and columns of tiles differ by more than that
PROGRAMS = {
    "MatmulMultiCoreReuseMultiCastProgramConfig": "2d",
    "MatmulMultiCoreReuseMultiCast1DProgramConfig": "1d",
    "MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig": "dram_sharded",
    "MatmulMultiCoreReuseProgramConfig": "batched",
    "MinimalMatmulConfig": "minimal",
}


def fidelity_of(options: Any) -> tuple[str, bool, bool]:
    """Math fidelity, whether float32 accumulates, and whether partial sums accumulate in L1; by TTNN's defaults."""
    config = options.get("compute_kernel_config") or options.get("compute_config")
    if config is None:
        return "HiFi2", False, True
    fidelity = getattr(config.math_fidelity, "name", config.math_fidelity)
    return fidelity, bool(config.fp32_dest_acc_en), bool(config.packer_l1_acc)


class Product:
    """The sizes of a product in tiles, and how TTNN computes it."""

    def __init__(self, call: Call, chip: Chip) -> None:
        options = call.options
        self.in0, self.in1 = call.inputs[0], call.inputs[1]
        self.out = call.outputs[0]
        config = options.get("program_config")
        self.k = ceil_div(self.in0.shape[-2 if options.get("transpose_a") else -1], 32)
        # Of a fused SwiGLU, two columns of the product make one of the result.
        self.n = self.in1.columns if options.get("fuse_swiglu") else self.out.columns
        second = (1, *self.in1.shape)[:-2]
        self.batch = self.out.rows // max(1, ceil_div(self.out.shape[-2] if len(self.out.shape) > 1 else 1, 32))
        self.batched = any(size > 1 for size in second)
        self.batch = self.batch if self.batched else 1
        self.m = self.out.rows // self.batch
        self.fidelity, self.float32, self.l1_accumulates = fidelity_of(options)
        grid = getattr(config, "compute_with_storage_grid_size", None) or options.get("core_grid")
        self.given_grid = grid is not None
        self.grid = (grid.x, grid.y) if grid is not None else chip.grid
        self.block = getattr(config, "in0_block_w", 0)
        # Parts of a core's rows of the result, for each of which it reads its columns of in1 again.
        self.parts = ceil_div(getattr(config, "per_core_M", 1), getattr(config, "out_block_h", 0) or 1 << 30)
        self.readers = getattr(config, "num_workers_per_dram_bank", 1) or 1
        activation = options.get("activation") or getattr(config, "fused_activation", None)
        fused = str(activation).lower() if activation is not None else ""
        # TTNN takes gelu from a table unless its parameter, "params=[0]", asks for the accurate one.
        self.gelu, self.table_gelu = "gelu" in fused, "[0]" not in fused and "tanh" not in fused
        self.kind = PROGRAMS.get(type(config).__name__, "") or getattr(config, "kind", "") or self._default(call.name)
        if not self.block:
            self.block = 2 if self.kind == "1d" else 4
        self.blocks = ceil_div(self.k, max(size for size in range(1, self.block + 1) if self.k % size == 0))

    def _default(self, name: str) -> str:
        if "minimal_matmul" in name:
            return "minimal"
        if self.in1.in_dram and self.in1.sharding != "INTERLEAVED":
            return "dram_sharded"
        if self.batched:
            return "batched"
        small, large = sorted((self.m, self.n))
        return "1d" if small == 1 or large > NARROW * small else "2d"

    @property
    def p(self) -> tuple[float, float]:
        return self.in0.tile_bytes, self.in1.tile_bytes

    @property
    def dram_bytes(self) -> int:
        return sum(x.bytes for x in (self.in0, self.in1, self.out) if x.in_dram)


def product(call: Call, chip: Chip) -> Cost:
    """Device time of `ttnn.linear`, `ttnn.matmul` and the forms of `ttnn.experimental.minimal_matmul`."""
    found = Product(call, chip)
    return KINDS[found.kind](found, chip)


def chosen_groups(call: Call, chip: Chip) -> Cost:
    """Device time of `ttnn.sparse_matmul` by a list of groups: one product after another, each of the group it reads.

    The result is filled with zeros before.
    """
    in0, in1, out = call.inputs[0], call.inputs[1], call.outputs[0]
    count = math.prod(out.shape[:-2])
    options = {"program_config": SimpleNamespace(kind="1d"), **call.options}  # it multiplies in no other way
    one = Call("ttnn.linear", (_matrix(in0), _matrix(in1)), (_matrix(out),), options)
    cost, filled = _wide(Product(one, chip), chip), stream(Call("ttnn.zeros_like", (), (out,)), chip, "elementwise", 0)
    seconds = cost.seconds + (count - 1) * (cost.seconds - chip.k.product_start_ns * 1e-9) + filled.seconds
    return Cost(seconds, cost.bound, cost.utilization, "sparse product")


def _matrix(tensor: Tensor) -> Tensor:
    return replace(tensor, shape=tensor.shape[-2:])


def _compute(product: Product, chip: Chip, rows: int, columns: int) -> float:
    """Nanoseconds of one core for rows x columns tiles of the result: products, and partial sums put back."""
    k = chip.k
    partial = k.partial_sum_cycles if product.float32 or not product.l1_accumulates else 0
    per_tile = product.k * chip.tile_product(product.fidelity, *product.p)
    total = rows * columns * (per_tile + chip.cycles((product.blocks - 1) * partial))
    if product.gelu:
        total += rows * columns * chip.cycles(k.gelu_cycles if product.table_gelu else k.gelu_accurate_cycles)
    return total


def _sent(tiles: float, tensor: Tensor, chip: Chip, to: int = 2) -> float:
    """Nanoseconds in which one core reads tiles and sends them to a row or column of cores, or keeps them."""
    return tiles * (tensor.tile_bytes / chip.k.sender_gbs + (chip.k.send_ns if to > 1 else 0))


def _sent_in_both(product: Product, chip: Chip, per_m: int, per_n: int) -> tuple[float, float]:
    """Nanoseconds of a sender of in0, which stays where it is sharded, and of one of in1."""
    shares_m, shares_n = ceil_div(product.m, per_m), ceil_div(product.n, per_n)
    sent0 = 0.0 if product.in0.sharded_in_l1 else _sent(per_m * product.k, product.in0, chip, shares_n)
    return sent0, product.parts * _sent(per_n * product.k, product.in1, chip, shares_m)


def _written(out: Tensor, chip: Chip) -> float:
    """Nanoseconds for a result; shards are computed in their place."""
    if out.sharded_in_l1:
        return 0.0
    return out.bytes / chip.k.product_write_gbs / (1 if out.in_dram else 2)


def _two_dimensional(product: Product, chip: Chip) -> Cost:
    """Rows of in0 are sent along rows of cores, columns of in1 along columns of cores, while all multiply."""
    columns, rows = product.grid
    per_m, per_n = ceil_div(product.m, rows), ceil_div(product.n, columns)
    sent0, sent1 = _sent_in_both(product, chip, per_m, per_n)
    return chip.cost(
        "2D product",
        compute=_compute(product, chip, per_m, per_n),
        noc=max(sent0, sent1) * (1 + (min(sent0, sent1) / max(sent0, sent1)) ** chip.k.overlap) ** (1 / chip.k.overlap),
        dram=(product.in1.bytes + (product.in0.bytes if product.in0.in_dram else 0)) / chip.k.interleaved_gbs,
        after=_written(product.out, chip),
        dispatch=chip.k.product_start_ns,
        products=product.m * product.n * product.k * product.batch,
        fidelity=product.fidelity,
        dram_bytes=product.dram_bytes,
    )


def _one_dimensional(product: Product, chip: Chip) -> Cost:
    return _wide(product, chip) if product.n >= product.m else _tall(product, chip)


def _wide(product: Product, chip: Chip) -> Cost:
    """Each core reads columns of in1; all of in0 is sent to every core."""
    k, cores = chip.k, product.grid[0] * product.grid[1]
    per_n = ceil_div(product.n, cores)
    used = ceil_div(product.n, per_n)
    bandwidth = min(k.interleaved_gbs, used * k.sender_gbs)
    return chip.cost(
        "1D product",
        compute=_compute(product, chip, product.m, per_n),
        dram=max(product.in1.bytes / bandwidth, product.blocks * k.block_ns),
        noc=0.0 if product.in0.sharded_in_l1 else _sent(product.m * product.k, product.in0, chip),
        after=_written(product.out, chip),
        dispatch=k.product_start_ns,
        products=product.m * product.n * product.k,
        fidelity=product.fidelity,
        dram_bytes=product.dram_bytes,
    )


def _tall(product: Product, chip: Chip) -> Cost:
    """Each core reads rows of in0; all of in1 is sent to every core.

    Reads, products and writes take turns, unless in0 is sharded.
    """
    k, cores = chip.k, product.grid[0] * product.grid[1]
    per_m = ceil_div(product.m, cores)
    in0 = 0.0 if product.in0.sharded_in_l1 else product.in0.bytes / k.tall_read_gbs
    return chip.cost(
        "1D product",
        compute=_compute(product, chip, per_m, product.n),
        dram=in0 + _written(product.out, chip) * k.tall_write_factor,
        noc=_sent(product.n * product.k, product.in1, chip),
        dispatch=k.product_start_ns,
        products=product.m * product.n * product.k,
        fidelity=product.fidelity,
        dram_bytes=product.dram_bytes,
        overlap=None if product.in0.sharded_in_l1 else 1.0,
    )


def _dram_sharded(product: Product, chip: Chip) -> Cost:
    """Each DRAM bank's columns of in1 are read by `readers` cores beside it, which multiply them."""
    k = chip.k
    columns = ceil_div(product.n, chip.banks) * chip.banks
    blocks = ceil_div(product.k, product.block)
    p = chip.tile_product(product.fidelity, *product.p)
    return chip.cost(
        "DRAM-sharded product",
        compute=product.m * product.k * columns / chip.banks / product.readers * p,
        dram=product.k * columns * product.in1.tile_bytes / k.dram_sharded_gbs,
        dispatch=k.product_start_ns / 2 + blocks * k.hop_ns,
        products=product.m * product.n * product.k,
        fidelity=product.fidelity,
        dram_bytes=product.dram_bytes,
    )


def _batched(product: Product, chip: Chip) -> Cost:
    """Batches are shared among the cores where a grid is given; else one after another, each with a latency."""
    k, cores = chip.k, product.grid[0] * product.grid[1]
    p = chip.tile_product(product.fidelity, *product.p)
    used = cores if product.given_grid else min(cores, max(product.m, 1) * max(1, product.n))
    blocks = ceil_div(product.batch * product.m * product.n, used) if product.given_grid else 0
    if product.given_grid:
        compute, latency = blocks * product.k * p, ceil_div(product.batch, cores) * k.batch_ns
    else:
        per_core = ceil_div(product.m * product.n, used)
        compute, latency = product.batch * per_core * product.k * p, product.batch * k.batch_ns
    return chip.cost(
        "batched product",
        compute=compute + latency,
        dram=sum(x.bytes for x in (product.in0, product.in1) if x.in_dram) / k.interleaved_gbs,
        after=_written(product.out, chip),
        dispatch=k.product_start_ns,
        products=product.m * product.n * product.k * product.batch,
        fidelity=product.fidelity,
        dram_bytes=product.dram_bytes,
    )


def _minimal(product: Product, chip: Chip) -> Cost:
    """`minimal_matmul`: shared as in two dimensions; reads and products add up. It may write its columns in parts."""
    columns, rows = product.grid
    product.n = product.in1.columns
    per_m, per_n = ceil_div(product.m, rows), ceil_div(product.n, columns)
    sent0 = _sent(per_m * product.k, product.in0, chip, ceil_div(product.n, per_n))
    return chip.cost(
        "minimal_matmul",
        compute=_compute(product, chip, per_m, per_n),
        noc=max(sent0, _sent_in_both(product, chip, per_m, per_n)[1]),
        after=_written(product.out, chip),
        dispatch=chip.k.product_start_ns,
        products=product.m * product.n * product.k,
        fidelity=product.fidelity,
        dram_bytes=product.dram_bytes,
        overlap=1.0,
    )


KINDS = {
    "2d": _two_dimensional,
    "1d": _one_dimensional,
    "dram_sharded": _dram_sharded,
    "batched": _batched,
    "minimal": _minimal,
}
