"""Products of one row of tiles, as those of a decode step: what bounds them is how fast their weights are read.

A weight that is sharded over the DRAM banks is read by cores beside each bank, at more of its bandwidth than pages that
lie on all banks in turn. Such a product takes the row in width shards and leaves the result in such. It sends the row
around in blocks, each from one core, which gathers those of several shards first: the fewer the faster.
An interleaved weight is read by all cores, or by those alone on which the result is to lie.
Source: tech_reports/Saturating_DRAM_bandwidth of tt-metal.
"""

import math

from tt_dynamo.ir.spec import Columns, tiles
from tt_dynamo.lowering.memory import (
    assigned,
    banks_of,
    cores,
    in_columns,
    interleaved,
    is_in_columns,
    shard_width,
    shares_columns,
)
from tt_dynamo.lowering.registry import TTNN, Tensor

# Cores that read each DRAM bank; TTNN takes more than one on Blackhole alone.
READERS = (1, 2, 3)


def is_row_in_shards(ttnn: TTNN, x: Tensor, weight: Tensor):
    """Whether a product has one row of tiles and reads or writes width shards, or a weight in DRAM shards."""
    in_shards = banks_of(weight) or is_in_columns(x) or isinstance(ttnn.memory, Columns)
    return tiles(tuple(x.shape))[0] == 1 and bool(in_shards)


def ways_from_banks(ttnn: TTNN, x: Tensor, weight: Tensor):
    """Candidates for a weight in DRAM shards: the fewest blocks first, of these the fewest readers."""
    lies = Columns(cores(x), 1, shard_width(x) // ttnn.TILE_SIZE) if _is_shared(x, weight) else _usual(ttnn, weight)
    depths = lies.blocks()[:4]
    return [{"in0_block_w": depth, "num_workers_per_dram_bank": count} for depth in depths for count in READERS]


def multiply_from_banks(ttnn: TTNN, x: Tensor, weight: Tensor, activation, candidate, **operands):
    """x times a weight in DRAM shards; x is moved into width shards that share the inner dimension evenly."""
    if not _is_shared(x, weight):
        x = ttnn.to_memory_config(x, in_columns(ttnn, _usual(ttnn, weight)))
    lies = ttnn.memory if isinstance(ttnn.memory, Columns) else None
    program = ttnn.MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig(
        **candidate,
        per_core_M=1,
        per_core_N=lies.width if lies else math.ceil(tiles(tuple(weight.shape))[1] / cores(x)),
        fused_activation=activation,
    )
    precision = {"compute_kernel_config": ttnn.settings.weight_kernel_config}
    result = ttnn.linear(
        x, weight, **operands, program_config=program, memory_config=ttnn.L1_WIDTH_SHARDED_MEMORY_CONFIG, **precision
    )
    return placed(ttnn, result)


def placed(ttnn: TTNN, result: Tensor):
    """A result in such shards as the compiler assigned, else in DRAM; moved there where it lies otherwise."""
    if ttnn.memory is None:
        return interleaved(ttnn, result)
    is_placed = isinstance(ttnn.memory, Columns) and shares_columns(result, ttnn.memory)
    return result if is_placed else ttnn.to_memory_config(result, **assigned(ttnn))


def _usual(ttnn: TTNN, weight: Tensor):
    """The width shards of a row that such a weight multiplies, where it does not lie in such."""
    return Columns.over(ttnn.settings.grid_size, tiles(tuple(weight.shape))[0])


def _is_shared(x: Tensor, weight: Tensor):
    """Whether x lies in width shards that share the rows of a weight evenly."""
    return is_in_columns(x) and tiles(tuple(weight.shape))[0] % cores(x) == 0
