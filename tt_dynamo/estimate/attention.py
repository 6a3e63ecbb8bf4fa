"""Device time of attention: scaled_dot_product_attention by chunks, and its decode form against a cache."""

from dataclasses import replace

from tt_dynamo.estimate.chip import PHASES, Chip, Cost
from tt_dynamo.estimate.kernels import moved_bytes
from tt_dynamo.estimate.products import fidelity_of
from tt_dynamo.estimate.tensor import TILE, Call, ceil_div


def _softmax(chip: Chip, fidelity: str, scores: float, results: float) -> float:
    """Nanoseconds of that many tiles of scores, and of as many of results that the next chunk of keys corrects.

    Most of it runs on the matrix engine, and so takes longer with every phase.
    """
    cycles = scores * chip.k.attention_softmax_cycles + results * chip.k.attention_correction_cycles
    return chip.cycles(cycles * PHASES.get(fidelity, 2))


def _chunks_of_busiest(heads: int, q_chunks: int, seen: float, cores: int, causal: bool) -> float:
    """Pairs of chunks of queries and of keys on the core that has most of them; seen: of one of queries, on average.

    A causal kernel hands out the first chunk of a head with the last, the second with the last but one, and so on, of
    which every two see as many keys: https://github.com/tenstorrent/tt-metal/issues/55766
    """
    if not causal or q_chunks == 1:
        return ceil_div(heads * q_chunks, cores) * seen
    if q_chunks % 2 == 0:
        return ceil_div(heads * q_chunks / 2, cores) * 2 * seen
    chunks = ceil_div(heads * q_chunks, cores)  # consecutive, so the busiest core has the last of a head
    return chunks * seen * (1 + max(0, q_chunks - chunks) / (q_chunks + 1))


def attention(call: Call, chip: Chip) -> Cost:
    """query [batch, heads, m, d], key and value [batch, kv heads, n, d].

    A core has whole chunks of queries. With each it goes through the chunks of keys: a causal one through those before
    it, reading keys and values from DRAM every time; else cores of one head pass them on.
    """
    query, key, value = call.inputs[:3]
    options = call.options
    config = options.get("program_config")
    grid = getattr(config, "compute_with_storage_grid_size", None)
    cores = grid.x * grid.y if grid is not None else chip.cores
    q_rows = ceil_div(getattr(config, "q_chunk_size", 0) or TILE, TILE)
    k_rows = ceil_div(getattr(config, "k_chunk_size", 0) or TILE, TILE)
    batch, heads, length, width = (1, 1, *query.shape)[-4:]
    m, n, d, v = (ceil_div(size, TILE) for size in (length, key.shape[-2], width, value.shape[-1]))
    q_chunks, k_chunks = ceil_div(m, q_rows), ceil_div(n, k_rows)
    causal = bool(options.get("is_causal", True))
    seen = min(k_chunks, (k_chunks + max(1.0, q_rows / k_rows)) / 2) if causal else k_chunks
    window = options.get("sliding_window_size")
    if window:
        seen = min(seen, ceil_div(window, k_rows * TILE) + 1)
    chunks = batch * heads * q_chunks
    fidelity, *_ = fidelity_of(options)
    p = chip.tile_product(fidelity, query.tile_bytes, key.tile_bytes)
    products = q_rows * k_rows * (d + v)
    softmax = _softmax(chip, fidelity, q_rows * k_rows, q_rows * v)
    masked = q_rows * k_rows * chip.cycles(chip.k.binary_cycles) if len(call.inputs) > 3 else 0.0
    traffic = chunks * seen * k_rows * (d * key.tile_bytes + v * value.tile_bytes) / (1 if causal else q_chunks)
    return chip.cost(
        "attention",
        compute=_chunks_of_busiest(batch * heads, q_chunks, seen, cores, causal) * (products * p + softmax + masked),
        dram=(traffic + moved_bytes((query, *call.outputs))) / chip.attention_gbs,
        dispatch=chip.cycles(chip.k.attention_start_cycles),
        products=batch * heads * q_chunks * seen * products,
        fidelity=fidelity,
        dram_bytes=moved_bytes(call.tensors),
    )


def joint_attention(call: Call, chip: Chip) -> Cost:
    """Attention of two streams to both: as of one sequence of all their rows."""
    heads = [
        replace(first, shape=(*first.shape[:-2], first.shape[-2] + second.shape[-2], first.shape[-1]))
        for first, second in zip(call.inputs[:3], call.inputs[3:6], strict=True)
    ]
    return attention(Call(call.name, heads, heads[:1], {**call.options, "is_causal": False}), chip)


def attention_decode(call: Call, chip: Chip) -> Cost:
    """query [1, batch, heads, d]; key, value [batch, kv heads, length, d]: all of the cache is read once.

    Each user has as many cores, and a head of keys several of them, or a core several heads one after another: as
    many as divide the heads, https://github.com/tenstorrent/tt-metal/pull/42591. Every head starts anew. Cores that lie
    all over the chip read faster than a part of it: https://github.com/tenstorrent/tt-metal/pull/56985

    Positions are values, so a cache counts as full.
    """
    query, key, value = call.inputs[:3]
    batch, kv_heads, length, width = (1, 1, *key.shape)[-4:]
    config = call.options.get("program_config")
    grid = getattr(config, "compute_with_storage_grid_size", None)
    cores = grid.x * grid.y if grid is not None else chip.cores
    users_cores = max(1, cores // batch)
    heads = next(heads for heads in range(1, kv_heads + 1) if kv_heads % heads == 0 and heads * users_cores >= kv_heads)
    shared = max(1, min(users_cores // kv_heads, getattr(config, "max_cores_per_head_batch", cores)))
    window = call.options.get("sliding_window_size")
    rows = ceil_div(min(length, window or length), TILE)
    d, m = ceil_div(width, TILE), ceil_div(max(1, query.shape[-2] // max(1, kv_heads)), TILE)
    fidelity, *_ = fidelity_of(call.options)
    p = chip.tile_product(fidelity, query.tile_bytes, key.tile_bytes)
    scores = _softmax(chip, fidelity, m, 0)
    dram_bytes = batch * kv_heads * rows * d * (key.tile_bytes + value.tile_bytes)
    return chip.cost(
        "attention decode",
        compute=heads * ceil_div(rows, shared) * (m * 2 * d * p + scores),
        dram=dram_bytes / chip.attention_gbs / (chip.k.attention_in_a_corner if cores < chip.cores else 1),
        dispatch=chip.cycles(heads * chip.k.attention_head_cycles),
        products=batch * kv_heads * rows * m * 2 * d,
        fidelity=fidelity,
        dram_bytes=dram_bytes,
    )
