"""One token of each user against a KV cache: fused node → TTNN calls.

Heads lie height sharded in L1, each user's on a core of their own; caches are interleaved in DRAM.
"""

import math

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused, Unsupported
from tt_dynamo.ir.spec import Columns, divisors
from tt_dynamo.lowering import workarounds
from tt_dynamo.lowering.language.attention import turn_by_tiles
from tt_dynamo.lowering.language.decode_products import placed
from tt_dynamo.lowering.memory import (
    assigned,
    first_cores,
    in_columns,
    in_rows,
    interleaved,
    is_in_columns,
    on_cores_of,
    on_rectangle,
    shares_columns,
    shares_cores,
)
from tt_dynamo.lowering.registry import Need, lower
from tt_dynamo.lowering.workarounds import TILE

POSITIONS = Need("ROW_MAJOR", "int32")


@lower(operators.split_heads_decode, sharded=True)
def split_heads_decode(ttnn, x, num_heads, num_kv_heads, apart=False):
    """x [1, 1, batch, (heads + 2 kv heads) head_dim] → query, key, value [1, batch, heads, head_dim].

    Of shards, the kernel counts as many tiles on each core of the rectangle around them, which TTNN does not check:
    nlp_create_qkv_heads_decode/device/kernels/reader_tm_tile_layout_nlp_create_qkv_heads_decode.cpp of tt-metal.
    Where keys go to cores of their own, no core may have parts of two heads; another kernel is told the cores, if these
    are no rectangle: nlp_create_qkv_heads_decode.cpp there. From DRAM all lie together.
    """
    heads, create = num_heads + 2 * num_kv_heads, ttnn.experimental.nlp_create_qkv_heads_decode
    counts = {"num_heads": num_heads, "num_kv_heads": num_kv_heads}
    if not is_in_columns(x):
        return create(interleaved(ttnn, x), **counts)
    wide = x.shape[-1] // TILE
    whole = Columns.of_parts(ttnn.settings.grid_size, wide, wide // heads) if apart and wide % heads == 0 else None

    def split(is_apart):
        if is_apart:
            rows = x if shares_columns(x, whole) else ttnn.to_memory_config(x, in_columns(ttnn, whole))
            return create(rows, **counts, overlap_qk_coregrid=False)
        return create(on_rectangle(ttnn, x), **counts)

    return ttnn.choose(("nlp_create_qkv_heads_decode", x, *counts.values()), [True] * bool(whole) + [False], split)


def into_columns(ttnn, x, shape):
    """x in another shape, of one row of tiles, in the width shards that it was assigned.

    Rows of many users' heads change their tiles one by one; where that takes longer, they are merged on their cores.
    """
    is_heads = len(x.shape) == 4 and tuple(shape[-2:]) == (x.shape[1], x.shape[2] * x.shape[3])

    def call(candidate):
        if candidate == "reshape":
            return ttnn.reshape(x, tuple(shape), **assigned(ttnn))
        merged = ttnn.experimental.nlp_concat_heads_decode(_on_rectangle(ttnn, x), num_heads=x.shape[2])
        if tuple(merged.shape) != tuple(shape):
            raise Refused(f"ttnn.experimental.nlp_concat_heads_decode gives {tuple(merged.shape)}")
        return placed(ttnn, merged)

    ways = ["reshape", *["nlp_concat_heads_decode"] * is_heads]
    return ttnn.choose(("reshape", x, tuple(shape), ttnn.memory), ways, call, costed=True)


@lower(operators.by_user, sharded=True)
def by_user(ttnn, x, users=None, apart=False):
    """x [1, batch, rows, width] or [1, 1, users rows, width], each user's rows on a core of their own."""
    return _by_user(ttnn, x, users=users, apart=apart)


def _on_rectangle(ttnn, x):
    """The same on a rectangle of cores, where there is one of as many as users."""
    batch, (columns, rows) = x.shape[1], ttnn.settings.grid_size
    wide = [size for size in divisors(batch, columns) if batch // size <= rows]
    return _by_user(ttnn, x, wide[0] if wide else None)


def _by_user(ttnn, x, columns=None, users=None, apart=False):
    """x with each user's rows on a core of their own, `columns` users in a row of cores.

    apart: on the cores that follow the first ones, where there are as many, as TTNN splits keys apart.
    """
    _, batch, rows, width = x.shape
    batch, rows = (batch, rows) if users is None else (users, rows // users)
    skipped = batch if apart and 2 * batch <= math.prod(ttnn.settings.grid_size) else 0
    shape = [rows + -rows % TILE, width + -width % TILE]
    return ttnn.to_memory_config(x, in_rows(ttnn, first_cores(ttnn, batch, columns, skipped), shape))


def _at_table(ttnn, x, table):
    """x with each user's rows where that one's row of a table lies: the kernels read it on their cores."""
    if x.is_sharded() and shares_cores(x, table):
        return x
    rows, width = x.shape[2], x.shape[3]
    return ttnn.to_memory_config(x, on_cores_of(ttnn, table, [rows + -rows % TILE, width + -width % TILE]))


@lower(operators.rotary_decode, sharded=True)
def rotary_decode(ttnn, x, cos, sin):
    """x [1, batch, heads, head_dim] turned by cos, sin [1, batch, 1, head_dim]."""
    config = ttnn.settings.compute_kernel_config
    x = _at_table(ttnn, x, cos)
    return ttnn.experimental.rotary_embedding_hf(x, cos, sin, is_decode_mode=True, compute_kernel_config=config)


@lower(operators.rotary_by_matrix_decode, sharded=True)
def rotary_by_matrix_decode(ttnn, x, cos, sin, matrix):
    """The same by a matrix of tiles [1, 1, 32 batch, 32]."""
    return turn_by_tiles(ttnn, _at_table(ttnn, x, cos), cos, sin, matrix, is_decode_mode=True)


@lower(operators.update_cache_decode, sharded=True, positions=POSITIONS)
def update_cache_decode(ttnn, cache, x, positions):
    """cache [batch, heads, length, head_dim] with x [1, batch, heads, head_dim] in row positions [batch], in place."""
    return ttnn.experimental.paged_update_cache(cache, _on_users(ttnn, x), update_idxs_tensor=positions)


@lower(operators.update_caches_decode, sharded=True, positions=POSITIONS)
def update_caches_decode(ttnn, key_cache, key, positions, value_cache, value):
    """Both caches of an attention, in place: at once where keys and values lie on different cores."""
    value = _on_users(ttnn, value)
    key = key if key.is_sharded() else _by_user(ttnn, key, apart=True)

    def update(is_at_once):
        if not is_at_once:
            written = ((key_cache, key), (value_cache, value))
            return tuple(update_cache_decode(ttnn, cache, x, positions) for cache, x in written)
        moved = _by_user(ttnn, key, apart=True) if shares_cores(key, value) else key
        operands = key_cache, moved, value_cache, value
        return ttnn.experimental.paged_fused_update_cache(*operands, update_idxs_tensor=positions)

    asked = "paged_fused_update_cache", key_cache, key, value_cache, value
    return ttnn.choose(asked, [True, False], update, costed=True)


@lower(operators.slide_cache_decode, sharded=True, rows=Need("ROW_MAJOR", "uint32"), last=POSITIONS)
def slide_cache_decode(ttnn, cache, x, rows, last):
    """cache [batch, heads, length, head_dim] with its rows [batch heads, length], then x in row positions [batch].

    TTNN slices and joins whole tiles, so rows change their places in a lookup: in ROW_MAJOR the cache is a table.
    """
    table = ttnn.reshape(ttnn.to_layout(cache, ttnn.ROW_MAJOR_LAYOUT), (-1, cache.shape[-1]))
    new = ttnn.reshape(ttnn.embedding(rows, table, layout=ttnn.TILE_LAYOUT), cache.shape)
    if new.dtype != cache.dtype:
        new = ttnn.typecast(new, cache.dtype)
    return update_cache_decode(ttnn, new, x, last)


@lower(operators.attention_decode, sharded=True, positions=POSITIONS)
def attention_decode(ttnn, query, key, value, positions, mask, scale, window):
    """Attention of query [1, batch, heads, head_dim] to key, value [batch, kv heads, length, head_dim].

    Source: Dao et al. 2023, https://pytorch.org/blog/flash-decoding/
    """
    length, scale = key.shape[2], query.shape[-1] ** -0.5 if scale is None else scale
    if mask is not None and length % TILE:
        raise Unsupported(f"a cache of {length} rows does not fill its tiles, and a mask says nothing of the rest")
    if mask is not None and scale != 1.0:  # the kernel would scale the mask as well
        query, scale = ttnn.multiply(query, scale), 1.0
    seen = {"cur_pos_tensor": positions} if mask is None else {"is_causal": False, "attn_mask": mask}
    if window is not None:
        seen["sliding_window_size"] = window
    grid = ttnn.CoreCoord(*ttnn.settings.grid_size)
    # Chunks of rows must divide the cache as it lies in tiles.
    sizes = ttnn.settings.config("ttnn.transformer.scaled_dot_product_attention_decode").get("chunk_sizes", (TILE,))
    sizes = [size for size in sizes if (length + -length % TILE) % size == 0]

    def attend(chunk):
        if chunk:
            fields = {"compute_with_storage_grid_size": grid, "q_chunk_size": 0, "exp_approx_mode": False, **chunk}
            chunk = {"program_config": ttnn.SDPAProgramConfig(**fields)}
        return ttnn.transformer.scaled_dot_product_attention_decode(
            query, key, value, **seen, scale=scale, compute_kernel_config=ttnn.settings.compute_kernel_config, **chunk
        )

    asked = ("scaled_dot_product_attention_decode", query, key, value, seen)
    return ttnn.choose(asked, [{}, *({"k_chunk_size": size} for size in sizes)], attend)


@lower(operators.capped_attention_decode, sharded=True)
def capped_attention_decode(ttnn, query, key, value, mask, scale, cap):
    """Attention with capped scores of query [1, batch, heads, head_dim], its heads merged.

    The heads of queries that share one of keys are rows of one product, and the mask is the same for all of them.
    """
    _, batch, heads, head_dim = query.shape
    kv_heads = key.shape[1]
    kernel = ttnn.settings.compute_kernel_config
    config = {"core_grid": ttnn.settings.core_grid, "compute_kernel_config": kernel}
    rows = ttnn.reshape(query, (batch, kv_heads, heads // kv_heads, head_dim), memory_config=ttnn.L1_MEMORY_CONFIG)
    scores = ttnn.matmul(rows, key, transpose_b=True, **config)
    scores = ttnn.multiply(scores, scale / cap, activations=[ttnn.UnaryWithParam(ttnn.UnaryOpType.TANH)])
    scores = ttnn.multiply(scores, cap) if mask is None else ttnn.mac(scores, cap, mask)
    weights = ttnn.softmax(scores, dim=3, numeric_stable=True, compute_kernel_config=kernel)
    return ttnn.reshape(ttnn.matmul(weights, value, **config), (1, 1, batch, heads * head_dim))


def _on_users(ttnn, x):
    """x as it is where its rows lie on their users' cores, else moved there."""
    return x if x.is_sharded() else by_user(ttnn, x)


@lower(operators.update_cache, sharded=True, positions=POSITIONS)
def update_cache(ttnn, cache, x, positions):
    """cache [batch, heads, length, head_dim] with x [batch, heads, 1, head_dim] written in place at positions [1]."""
    if cache.shape[0] > 1:
        positions = ttnn.repeat(positions, (cache.shape[0],))
    return update_cache_decode(ttnn, cache, ttnn.permute(x, (2, 0, 1, 3)), positions)


@lower(operators.fill_cache)
def fill_cache(ttnn, cache, x, written=None):
    """cache [batch, heads, length, head_dim] with x [batch, heads, seq, head_dim] in its first rows, in place.

    TTNN writes whole tiles: the rows of the cache behind x in its last tile are written as they are.
    """
    batch, heads, seq, head_dim = x.shape
    if written is None:
        x = workarounds.fill_padding(ttnn, x)
    elif written.shape[2] != seq:
        x = ttnn.pad(x, [(0, 0), (0, 0), (0, written.shape[2] - seq), (0, 0)], 0.0)
    if x.dtype != cache.dtype:
        x = ttnn.typecast(x, cache.dtype)
    if written is not None:
        x = workarounds.fill_padding(ttnn, ttnn.where(written, x, ttnn.slice(cache, (0, 0, 0, 0), x.shape)))
    for user in range(batch):
        rows = x if batch == 1 else ttnn.slice(x, (user, 0, 0, 0), (user + 1, heads, x.shape[2], head_dim))
        cache = ttnn.fill_cache(cache, rows, user)
    return cache


@lower(operators.slide_cache)
def slide_cache(ttnn, cache, x):
    """cache [batch, heads, length, head_dim] without its first row, and x [batch, heads, 1, head_dim] as its last."""
    return ttnn.concat([ttnn.slice(cache, (0, 0, 1, 0), cache.shape), x], 2)
