"""Device time of elementwise operations, moves, norms, reductions and lookups.

A kernel that streams takes the longest of three: what each core computes, tiles read and written one after another on
each core, and the bytes of all cores at the bandwidth of DRAM. Shards lie where they are computed and move nothing.
"""

import dataclasses
import math
from collections.abc import Sequence

from tt_dynamo.estimate.chip import NOTHING, Chip, Cost
from tt_dynamo.estimate.tensor import FACE, TILE, Call, Tensor, ceil_div


def moved_bytes(tensors: Sequence[Tensor]) -> int:
    """Bytes that are read from DRAM or written to it."""
    return sum(tensor.bytes for tensor in tensors if tensor.in_dram)


def cores_of(tensor: Tensor, chip: Chip) -> int:
    """On how many cores a kernel that makes this result runs."""
    return tensor.cores if tensor.sharded_in_l1 else max(1, min(chip.cores, tensor.pages))


def stream(
    call: Call, chip: Chip, family: str, cycles: float = 0.0, *, dram_bytes: float | None = None, start: float = 0.0
) -> Cost:
    """A kernel that reads its operands and writes its results once. cycles: of computing one tile of the result.

    Of several results each tile is one's, as a split of heads writes it.
    """
    k, out = chip.k, call.outputs[0]
    interleaved = sum(not tensor.sharded_in_l1 for tensor in (*call.inputs, out))
    per_tile = k.stream_cycles + interleaved * k.stream_operand_cycles if interleaved else 0.0
    per_page = per_tile if out.layout == "TILE" else k.page_cycles
    pages = ceil_div(sum(tensor.pages for tensor in call.outputs), cores_of(out, chip))
    if not interleaved and not cycles:
        cycles = k.shard_copy_cycles
    dram_bytes = moved_bytes(call.tensors) if dram_bytes is None else dram_bytes
    return chip.cost(
        family,
        compute=chip.cycles(pages * cycles),
        noc=chip.cycles(pages * per_page),
        dram=dram_bytes / k.stream_gbs,
        dispatch=chip.cycles((k.start_cycles if interleaved else k.start_in_shards_cycles) + start),
        dram_bytes=dram_bytes,
    )


def unary(call: Call, chip: Chip) -> Cost:
    return stream(call, chip, "elementwise", chip.k.unary_cycles)


def activation(call: Call, chip: Chip) -> Cost:
    """Functions of an exponential: exp, sigmoid, silu, tanh; an exponential and what is made of it."""
    return stream(call, chip, "elementwise", 2 * chip.k.unary_cycles)


def slow_unary(call: Call, chip: Chip) -> Cost:
    """Functions that the vector engine computes in many steps: erf, gelu, logarithms, divisions, powers."""
    return stream(call, chip, "elementwise", chip.k.slow_unary_cycles)


def snake(call: Call, chip: Chip) -> Cost:
    """A sine and a reciprocal, of vectors that are filled in for every tile: x + sin²(frequency x) / denominator."""
    return stream(call, chip, "elementwise", 2 * chip.k.slow_unary_cycles + chip.k.broadcast_cycles)


def binary(call: Call, chip: Chip) -> Cost:
    """Sums, products, comparisons, choices; an operand that broadcasts is filled in for every tile of the result.

    ReLU of a result is what the packer writes, unless an operand broadcasts.
    Source: binary_ng_program_factory.cpp of tt-metal, and its issue 44823.
    """
    k, out = chip.k, call.outputs[0]
    cycles = k.binary_cycles * max(1, len(call.inputs) - 1)
    broadcasts = any(tensor.tiles < out.tiles and tensor.memory != "HOST" for tensor in call.inputs)
    if broadcasts:
        cycles = k.broadcast_cycles
    start = 0 if len(call.inputs) > 1 else k.scalar_start_cycles  # a tile is filled with the number
    for name in ("activations", "input_tensor_a_activations", "input_tensor_b_activations"):
        for fused in call.options.get(name) or ():
            if name == "activations" and not broadcasts and str(fused).endswith(("relu", "RELU)")):
                continue
            cycles += k.unary_cycles * (1 if "relu" in str(fused).lower() else 2)  # others are made of exponentials
    return stream(call, chip, "elementwise", cycles, start=start)


def copy(call: Call, chip: Chip) -> Cost:
    """Moves of whole tiles or whole rows: concat, pad, repeat, typecast, clone."""
    return stream(call, chip, "move")


def fill_padding(call: Call, chip: Chip) -> Cost:
    """In place, the tiles at the end of rows and columns that padding fills in part: read and written once."""
    x = call.inputs[0]
    edges = (x.tiles // x.columns if x.shape[-1] % TILE else 0) + (
        x.columns * math.prod(x.shape[:-2]) if (1, *x.shape)[-2] % TILE else 0
    )
    edge = Tensor((max(1, edges) * TILE, TILE), x.dtype, memory=x.memory)
    return stream(Call(call.name, (edge,), (edge,)), chip, "move")


def part(call: Call, chip: Chip) -> Cost:
    """Moves that read no more than they write: slice, split."""
    reads = moved_bytes(call.outputs) if call.inputs[0].in_dram else 0
    return stream(call, chip, "move", dram_bytes=reads + moved_bytes(call.outputs))


def transpose(call: Call, chip: Chip) -> Cost:
    """Of the last two dimensions whole tiles change places; any other order gathers the rows of every tile."""
    first, out = call.inputs[0], call.outputs[0]
    if out.layout != "TILE":
        return _by_rows(call, chip, "transpose")
    if first.shape[-2:] == out.shape[:-3:-1]:
        return stream(call, chip, "transpose")
    return _gathered(call, chip, "transpose", chip.k.gather_row_cycles)


def _gathered(call: Call, chip: Chip, family: str, cycles: float) -> Cost:
    """A move that puts each tile of the result together from rows of several; cycles: of a row as wide as a tile."""
    out = call.outputs[0]
    pieces = max(math.prod(tensor.shape[:-1]) * tensor.columns for tensor in (call.inputs[0], out))
    return chip.cost(
        family,
        noc=chip.cycles(ceil_div(pieces, max(1, min(chip.cores, out.tiles))) * cycles),
        dram=moved_bytes(call.tensors) / chip.k.stream_gbs,
        dispatch=chip.cycles(chip.k.start_cycles),
        dram_bytes=moved_bytes(call.tensors),
    )


def reshape(call: Call, chip: Chip) -> Cost:
    """A reshape that is no view: in tiles, rows change their tiles; in ROW_MAJOR, pages change their length."""
    if call.outputs[0].layout == "TILE":
        return _gathered(call, chip, "reshape", chip.k.reshape_row_cycles)
    return _by_rows(call, chip, "reshape")


def row_after_row(
    call: Call, chip: Chip, family: str, *, compute: float = 0.0, l1: float = 0.0, noc: float = 0.0
) -> Cost:
    """A kernel that moves rows one by one between DRAM and its cores, which do these parts of it, in nanoseconds."""
    dram_bytes = moved_bytes(call.tensors)
    return chip.cost(
        family,
        compute=compute,
        l1=l1,
        noc=noc,
        dram=dram_bytes / chip.k.row_gbs,
        dispatch=chip.cycles(chip.k.start_cycles),
        dram_bytes=dram_bytes,
    )


def _by_rows(call: Call, chip: Chip, family: str) -> Cost:
    pages = max(tensor.pages for tensor in call.tensors)
    return row_after_row(
        call, chip, family, noc=chip.cycles(ceil_div(pages, min(chip.cores, pages)) * chip.k.page_cycles)
    )


def place(call: Call, chip: Chip) -> Cost:
    """`to_memory_config` and its kin: between DRAM and L1, interleaved and sharded."""
    k, source, out = chip.k, call.inputs[0], call.outputs[0]
    if not source.sharded_in_l1 and not out.sharded_in_l1:
        return copy(call, chip)
    cores = max(source.cores, out.cores, 1)
    in_l1 = not source.in_dram and not out.in_dram
    cycles = k.shard_copy_cycles if in_l1 else k.place_cycles if source.layout == "TILE" else k.row_place_cycles
    read = source.bytes / k.read_gbs if source.in_dram else 0.0
    written = min(source.bytes, out.bytes) / k.write_gbs if out.in_dram else 0.0
    across = max(1, out.columns) if out.layout != "TILE" and out.sharding == "BLOCK_SHARDED" else 1
    pages = ceil_div(source.pages * min(across, 4), cores)
    return chip.cost(
        "move",
        noc=chip.cycles(pages * cycles),
        dram=read + written,
        dispatch=chip.cycles(k.start_in_shards_cycles),
        dram_bytes=moved_bytes(call.tensors),
    )


def change_layout(call: Call, chip: Chip) -> Cost:
    """`to_layout`: rows become tiles, or tiles rows; where either does not fill its tiles, row by row.

    Each core changes those of its own shards, where both lie in shards.
    """
    k, source, out = chip.k, call.inputs[0], call.outputs[0]
    if source.layout == out.layout:
        return copy(call, chip)
    rows, tiled = (source, out) if out.layout == "TILE" else (out, source)
    cores = max(source.cores, out.cores) or min(chip.cores, max(1, tiled.rows))
    per_core, pages = ceil_div(tiled.tiles, cores), 0 if source.cores else ceil_div(rows.pages, cores)
    noc = max(per_core * k.layout_cycles, pages * k.page_cycles)
    is_moved = not (source.sharded_in_l1 and out.sharded_in_l1)
    if is_moved and any(size % TILE for size in (1, *rows.shape)[-2:]):
        noc = max(ceil_div(tiled.rows, cores) * TILE * k.padded_row_cycles, per_core * k.padded_tile_cycles)
        if tiled.rows == 1 and tiled.columns >= TILE:  # shared by columns
            noc = ceil_div(tiled.columns, chip.cores) * TILE * k.page_cycles
    return row_after_row(call, chip, "layout", noc=chip.cycles(noc))


def heads(call: Call, chip: Chip) -> Cost:
    """Splitting and merging heads: every tile is read and written once."""
    return stream(call, chip, "heads")


def heads_of_any_cores(call: Call, chip: Chip) -> Cost:
    """The same by a kernel that reads shards as if they were interleaved: each core gathers rows from several."""
    x = dataclasses.replace(call.inputs[0], sharding="INTERLEAVED", cores=0)
    return heads(Call(call.name, (x,), call.outputs), chip)


def heads_decode(call: Call, chip: Chip) -> Cost:
    """Heads of one token of each user: rows within a tile change their cores, half of them by each data mover.

    Keys that go to cores of their own are moved at the same time as the queries and values, which are more.
    """
    x, cores = call.inputs[0], max(1, call.outputs[0].cores)
    rows = ceil_div(math.prod(x.shape[:-1]) * x.columns, min(chip.cores, cores)) * chip.k.page_cycles / 2
    if not call.options.get("overlap_qk_coregrid", True):
        heads, kv_heads = call.options["num_heads"], call.options["num_kv_heads"]
        rows *= (heads + kv_heads) / (heads + 2 * kv_heads)
    return chip.cost("heads", noc=chip.cycles(rows), dispatch=chip.cycles(chip.k.start_cycles))


def rotary(call: Call, chip: Chip) -> Cost:
    """Rotary embedding: cos and sin are read beside every tile of x; two products, a sum and a turn of the halves."""
    x, tables = call.inputs[0], call.inputs[1:3]
    dram_bytes = moved_bytes((x, *call.outputs)) + sum(x.bytes for table in tables if table.in_dram)
    return stream(call, chip, "rotary", 4 * chip.k.binary_cycles, dram_bytes=dram_bytes)


def update_cache(call: Call, chip: Chip) -> Cost:
    """One row of each user: its tiles are untilized, changed and tilized; each user is a core's.

    Two caches are written at the same time, on different cores.
    """
    cache, x = call.inputs[0], call.inputs[1]
    heads = cache.shape[1] if len(cache.shape) > 1 else 1
    users = max(1, x.cores or min(chip.cores, cache.shape[0]))
    tiles = heads * cache.columns * ceil_div(cache.shape[0], users)
    return chip.cost(
        "cache update",
        compute=chip.cycles(tiles * 2 * chip.k.binary_cycles),
        dispatch=chip.cycles(2 * chip.k.start_cycles),
        dram_bytes=2 * tiles * users * cache.tile_bytes * len(call.outputs),
    )


def fill_cache(call: Call, chip: Chip) -> Cost:
    """A prompt's rows into the cache: every tile of them is read and written once."""
    x = call.inputs[1]
    return stream(Call(call.name, (x,), (x,)), chip, "cache update")


def embedding(call: Call, chip: Chip) -> Cost:
    """Rows of a table, one read each; cores share the numbers by rows of tiles."""
    out, k = call.outputs[0], chip.k
    rows = math.prod(out.shape[:-1])
    cores = min(chip.cores, max(1, ceil_div(rows, FACE)))
    dram_bytes = 2 * rows * out.shape[-1] * out.tile_bytes / TILE**2
    return chip.cost(
        "embedding",
        noc=ceil_div(rows, cores) * k.lookup_ns,
        dram=dram_bytes / k.row_gbs,
        dispatch=chip.cycles(k.start_cycles),
        dram_bytes=dram_bytes,
    )


def norm(call: Call, chip: Chip) -> Cost:
    """Layer norm and RMS norm. Interleaved, a row of tiles is one core's; shards share the columns as well.

    A result on other cores is moved there when it is computed.
    """
    k, x, out = chip.k, call.inputs[0], call.outputs[0]
    residual = call.options.get("residual_input_tensor") is not None
    cycles = k.norm_cycles * (k.norm_residual if residual else 1)
    dram_bytes = (2 + residual) * x.bytes if x.in_dram else 0
    if x.sharded_in_l1:
        compute = ceil_div(x.tiles, x.cores or chip.cores) * cycles
        start = k.norm_in_one_row_start_cycles if x.rows == 1 else k.norm_start_cycles
        if out.sharded_in_l1 and out.cores != x.cores:
            compute += ceil_div(x.tiles, max(x.cores, out.cores)) * k.shard_copy_cycles
    else:
        compute, start = ceil_div(x.rows, min(chip.cores, x.rows)) * x.columns * cycles, k.norm_start_cycles
    return chip.cost(
        "norm",
        compute=chip.cycles(compute),
        dram=dram_bytes / k.stream_gbs,
        dispatch=chip.cycles(start),
        dram_bytes=dram_bytes if out.in_dram else dram_bytes / 2,
    )


def softmax(call: Call, chip: Chip) -> Cost:
    """Softmax over columns: each tile takes a maximum, a difference, an exponential and a product."""
    k, x, out = chip.k, call.inputs[0], call.outputs[0]
    rows = ceil_div(x.rows, min(chip.cores, x.rows))
    tiles = ceil_div(x.tiles, x.cores) if x.sharded_in_l1 else rows * x.columns
    dram_bytes = moved_bytes((x, out))
    return chip.cost(
        "softmax",
        compute=chip.cycles(tiles * (k.unary_cycles + 3 * k.binary_cycles)),
        dram=dram_bytes / k.stream_gbs,
        dispatch=chip.cycles(k.softmax_start_cycles if not x.sharded_in_l1 else k.norm_start_cycles),
        dram_bytes=dram_bytes,
    )


def group_norm(call: Call, chip: Chip) -> Cost:
    k, x = chip.k, call.inputs[0]
    tiles = ceil_div(x.tiles, cores_of(x, chip))
    dram_bytes = moved_bytes((x, *call.outputs))
    return chip.cost(
        "group norm",
        compute=chip.cycles(tiles * k.group_norm_cycles),
        dram=dram_bytes / k.stream_gbs,
        dispatch=chip.cycles(k.norm_start_cycles),
        dram_bytes=dram_bytes,
    )


def reduce(call: Call, chip: Chip) -> Cost:
    """Sums, means, extremes, variances: every tile of the operand is read once; each result is one core's."""
    k, x, out = chip.k, call.inputs[0], call.outputs[0]
    # Over rows or columns a core takes whole ones; over leading dimensions every tile of the result is one core's.
    cores = max(1, min(chip.cores, max(out.tiles, min(x.rows, x.columns))))
    tiles = ceil_div(x.tiles, cores)
    per_tile = max(k.binary_cycles, k.stream_cycles + k.stream_operand_cycles)
    return chip.cost(
        "reduction",
        compute=chip.cycles(tiles * per_tile),
        dram=moved_bytes((x, out)) / k.stream_gbs,
        dispatch=chip.cycles(k.start_cycles),
        dram_bytes=moved_bytes((x, out)),
    )


def rank(call: Call, chip: Chip) -> Cost:
    """Top-k, sorting and running sums: each row of tiles is one core's; sorting merges log2(columns) times."""
    k, x = chip.k, call.inputs[0]
    rows = ceil_div(x.rows, min(chip.cores, x.rows)) if x.rows else 1
    merges = max(1, math.ceil(math.log2(max(2, x.columns))))
    cycles = rows * x.columns * merges * k.slow_unary_cycles
    return row_after_row(call, chip, "top-k and sampling", compute=chip.cycles(cycles))


def prefix_scan(call: Call, chip: Chip) -> Cost:
    """A recurrence along rows in width shards: of each 32 columns of tiles, every row by itself.

    Seven passes over each tile: three change between rows and tiles, four multiply, add and keep the state.
    Source: ssm_prefix_scan.cpp of tt-metal.
    """
    out = call.outputs[0]
    columns = ceil_div(ceil_div(out.columns, max(1, out.cores)), TILE) * TILE
    return stream(call, chip, "scan", 7 * chip.k.binary_cycles * columns * out.cores / out.columns)


def scan_rows(call: Call, chip: Chip) -> Cost:
    """Where the largest element is, and elements by number: row after row, element by element on each core."""
    x = call.inputs[0]
    rows = max(1, math.prod(x.shape[:-1]))
    elements = ceil_div(math.prod(x.shape), min(chip.cores, rows if rows > 1 else chip.cores))
    return row_after_row(call, chip, "top-k and sampling", compute=chip.cycles(elements * chip.k.scan_cycles))


def nothing(call: Call, chip: Chip) -> Cost:
    """A call that launches no kernel."""
    return NOTHING


def unknown(call: Call, chip: Chip) -> Cost:
    """An operation without a formula: its bytes at the bandwidth that kernels reach."""
    total = sum(tensor.bytes for tensor in call.tensors)
    seconds = (total / chip.k.stream_gbs + chip.cycles(chip.k.start_cycles)) * 1e-9
    return Cost(seconds, "unknown", min(1.0, total / chip.dram * 1e-9 / seconds), "unknown")
