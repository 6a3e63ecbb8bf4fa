"""Device time of recurrences that one kernel computes whole."""

from tt_dynamo.estimate.chip import Chip, Cost
from tt_dynamo.estimate.kernels import moved_bytes
from tt_dynamo.estimate.tensor import TILE, Call, ceil_div

FIDELITY = "HiFi4"  # which TTNN's kernels take, in float32
FLOAT32 = 4096  # bytes of a tile
INVERSE = 60  # products and sums of a tile's inverse, by Horner's scheme in quadrants
ALONGSIDE = 20  # other calls for a chunk: norms, decays, transposes


def delta_rule(call: Call, chip: Chip) -> Cost:
    """q, k, v [batch, tokens, heads width], g [batch, tokens, heads], in chunks of a tile's rows.

    What chunks need of themselves is shared by all cores. States go from chunk to chunk, on as many cores a head as
    there are and as it has columns of tiles. Source: chunk_gdn_phased_program_factory.cpp of tt-metal.
    """
    g, value = call.inputs[3], call.inputs[2]
    batch, tokens, heads = g.shape
    wide, chunks = ceil_div(value.shape[-1] // heads, TILE), ceil_div(tokens, TILE)
    cores = max(1, chip.cores // (batch * heads))
    own = ceil_div(wide, min(cores, wide))  # columns of a state on one core
    product = chip.tile_product(FIDELITY, FLOAT32, FLOAT32) + chip.cycles(chip.k.binary_cycles)
    within = 2 * wide + INVERSE + ALONGSIDE + 6 * wide
    along = 3 * wide * own + 2 * own + 2 * wide * own
    busiest = ceil_div(batch * heads * chunks, chip.cores) * within + chunks * along
    between = batch * heads * chunks * (4 * wide + 3) * FLOAT32  # written, and read by those that carry the states
    return chip.cost(
        "scan",
        compute=busiest * product,
        dram=(2 * between + moved_bytes(call.tensors)) / chip.k.stream_gbs,
        dispatch=chip.cycles(2 * chip.k.start_cycles),
        products=batch * heads * chunks * (2 * wide + 3 * wide**2 + 2 * wide + INVERSE / 2),
        fidelity=FIDELITY,
        dram_bytes=moved_bytes(call.tensors),
    )
