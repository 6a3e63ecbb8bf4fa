"""Attention, its heads and their rotary position embedding: fused or ATen node → TTNN calls."""

import itertools
import math
import struct

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.spec import LARGEST
from tt_dynamo.lowering import workarounds
from tt_dynamo.lowering.matmul import matmul, product_config
from tt_dynamo.lowering.memory import assigned, is_sharded
from tt_dynamo.lowering.registry import TTNN, Tensor, lower
from tt_dynamo.lowering.workarounds import TILE, compute_kernel_config

ATTENTION = "ttnn.transformer.scaled_dot_product_attention"
BEST, MOST = 3, 8  # pairs of chunk sizes that are tried: whatever they take of L1, and in all
CAUSAL_READING = 8 * TILE  # rows of queries whose scores with a key take as long as reading it, of a head of 128
CORRECTING = 3 * TILE  # keys, scores of which take as long as correcting a query's results


def check_whole_tiles(heads):
    """Kernels of heads [..., head_dim] count what pads the last tile of each as its own."""
    if heads.shape[-1] % TILE:
        raise Unsupported(f"a head of {heads.shape[-1]} elements does not fill its tiles")


@lower(aten.scaled_dot_product_attention.default)
def scaled_dot_product_attention(
    ttnn, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """softmax(query keyᵀ scale + attn_mask) value → [batch, heads, query length, value_dim].

    query [batch, heads, query length, head_dim]; key [batch, kv heads, key length, head_dim]; value [..., value_dim].
    Source: Dao 2023, https://arxiv.org/abs/2307.08691
    """
    if dropout_p:
        raise Unsupported("attention with dropout: TTNN's attention has none")
    if len(query.shape) != 4:
        raise Unsupported(f"attention of {len(query.shape)} dimensions: TTNN's has four")
    head_dim, value_dim = query.shape[-1], value.shape[-1]
    wide = math.ceil(max(head_dim, value_dim) / TILE) * TILE
    # Zeros add nothing to a dot product; the scale is the true head_dim's.
    query, key, value = (_padded(ttnn, x, wide) for x in (query, key, value))
    scale = head_dim**-0.5 if scale is None else scale
    out = _chunked(ttnn, query, key, value, attn_mask, is_causal, scale)
    return out if wide == value_dim else ttnn.slice(out, (0, 0, 0, 0), (*out.shape[:-1], value_dim))


def _padded(ttnn: TTNN, heads: Tensor, wide):
    """Heads [..., wide], zeros behind their own."""
    padding = wide - heads.shape[-1]
    return ttnn.pad(heads, [(0, 0), (0, 0), (0, 0), (0, padding)], 0.0) if padding else heads


@lower(operators.attention)
def attention(ttnn: TTNN, query: Tensor, key: Tensor, value, mask, is_causal, scale, window=None):
    """The same with its heads merged by the kernel that computes it: [batch, 1, query length, heads head_dim].

    TTNN's window, too, counts the key at the query's own place.
    """
    check_whole_tiles(query)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    options = {} if window is None else {"sliding_window_size": window}
    return _chunked(ttnn, query, key, value, mask, is_causal, scale, output_concat_heads=True, **options)


@lower(operators.merge_heads)
def merge_heads(ttnn: TTNN, x: Tensor):
    """x [batch, heads, seq, head_dim] → [batch, 1, seq, heads head_dim]."""
    check_whole_tiles(x)
    return ttnn.experimental.nlp_concat_heads(x)


@lower(operators.joint_attention)
def joint_attention(ttnn: TTNN, query1: Tensor, key1: Tensor, value1, query2: Tensor, key2: Tensor, value2, scale):
    """softmax(query keyᵀ scale) value of two streams to both → their heads merged, [batch, 1, rows, heads head_dim]."""
    check_whole_tiles(query1)
    batch, heads, rows, head_dim = query1.shape
    keys = rows + key2.shape[2]
    # TTNN takes no scale that float32 rounds.
    given = {} if scale is None else {"scale": struct.unpack("f", struct.pack("f", scale))[0]}
    given |= {"joint_strategy": "rear", "compute_kernel_config": ttnn.settings.compute_kernel_config}
    operands = (query1, key1, value1, query2, key2, value2)

    def attend(program):
        return ttnn.transformer.joint_scaled_dot_product_attention(*operands, program_config=program, **given)

    asked = ("joint_scaled_dot_product_attention", *operands, scale)
    both = _by_chunks(ttnn, asked, attend, (batch, heads, keys, head_dim), keys, False)
    return tuple(merge_heads(ttnn, x) for x in both)


@lower(operators.capped_attention)
def capped_attention(ttnn: TTNN, query: Tensor, key: Tensor, value, mask, scale, cap):
    """softmax(cap tanh(query keyᵀ scale / cap) + mask) value → [batch, heads, query length, head_dim].

    TTNN's attention caps nothing. The heads of queries that share one of keys are rows of one product, which repeats
    no key; the scale and the cap are factors of operations that are there anyway.
    """
    batch, heads, seq, head_dim = query.shape
    kv_heads, keys = key.shape[1:3]
    config = product_config(ttnn)
    rows = ttnn.reshape(query, (batch, kv_heads, heads // kv_heads * seq, head_dim))
    scores = ttnn.matmul(rows, key, transpose_b=True, **config)
    scores = ttnn.multiply(scores, scale / cap, activations=[ttnn.UnaryWithParam(ttnn.UnaryOpType.TANH)])
    scores = ttnn.reshape(scores, (batch, heads, seq, keys))
    scores = ttnn.multiply(scores, cap) if mask is None else ttnn.mac(scores, cap, mask)
    weights = ttnn.softmax(scores, dim=3, numeric_stable=True, compute_kernel_config=config["compute_kernel_config"])
    weights = ttnn.reshape(weights, (*rows.shape[:3], keys))
    return ttnn.reshape(ttnn.matmul(weights, value, **config), query.shape)


def _chunked(ttnn: TTNN, query: Tensor, key: Tensor, value, mask, is_causal, scale, **options):
    """TTNN's attention by chunks."""
    mask = workarounds.pad_mask(ttnn, mask)
    asked = ("scaled_dot_product_attention", query, key, value, mask, is_causal, options, ttnn.memory)
    # Heads of block floats are those of encoders, whose experts multiply them in LoFi where they do so elsewhere.
    narrow, settings = query.dtype == ttnn.bfloat8_b, ttnn.settings
    precision = {"compute_kernel_config": settings.weight_kernel_config if narrow else settings.compute_kernel_config}
    given = {"attn_mask": mask, "is_causal": is_causal, "scale": scale, **options, **assigned(ttnn), **precision}

    def attend(program):
        return ttnn.transformer.scaled_dot_product_attention(query, key, value, program_config=program, **given)

    return _by_chunks(ttnn, asked, attend, tuple(query.shape), key.shape[2], is_causal, **options)


def _by_chunks(ttnn: TTNN, asked, attend, shape, keys, is_causal, **options):
    """Attention in the chunks that are estimated to take the least time, of those that TTNN accepts.

    attend: calls it with a program configuration. shape: of the queries.
    """
    columns, rows = ttnn.settings.grid_size
    sizes = ttnn.settings.config(ATTENTION).get("chunk_sizes", (TILE,))
    chunks = _chunks(sizes, shape, keys, columns * rows, is_causal, **options)

    def in_chunks(chunk):
        grid = ttnn.CoreCoord(columns, rows)
        return attend(ttnn.SDPAProgramConfig(compute_with_storage_grid_size=grid, **chunk, exp_approx_mode=False))

    return ttnn.choose(asked, [{"q_chunk_size": q, "k_chunk_size": k} for q, k in chunks], in_chunks, costed=True)


def _chunks(sizes, shape, keys, cores, is_causal, sliding_window_size=None, **_):
    """A few pairs of chunk sizes, of queries and of keys: first the best by their work, then ever smaller ones.

    A core takes whole chunks of queries, in causal attention the first of a head with the last, the second with the
    last but one. With each it goes through chunks of keys, which causal attention reads from DRAM every time, and
    corrects its results for each. So what counts is how evenly chunks of queries fill the cores, how far both fill
    their last chunk, and how often keys are read. Smaller ones take less L1. Sources: tt-metal issues 51911, 55756 and
    55766.
    """
    batch, heads, seq, _ = shape
    reading = CAUSAL_READING if is_causal else TILE

    def work(pair):
        q, k = pair
        length, together = math.ceil(keys / k) * k, 2 if is_causal and math.ceil(seq / q) % 2 == 0 else 1
        seen = min(length, (length + max(q, k)) / 2) if together == 2 else length
        if sliding_window_size is not None:
            seen = min(seen, math.ceil(sliding_window_size / k) * k + k)
        chunks = math.ceil(batch * heads * math.ceil(seq / q) / together / cores) * together
        return chunks * seen * (q * (1 + CORRECTING / k) + reading), -q, -k

    q_sizes, k_sizes = ([size for size in sizes if size < 2 * max(length, TILE)] or [TILE] for length in (seq, keys))
    ordered = sorted(itertools.product(q_sizes, k_sizes), key=work)
    areas = list(itertools.accumulate((q * k for q, k in ordered), min))
    smaller = [pair for at, pair in enumerate(ordered) if at < BEST or pair[0] * pair[1] < areas[at - 1]]
    return [*smaller[: MOST - 1], *smaller[MOST - 1 :][-1:]]


@lower(operators.attention_mask)
def attention_mask(ttnn: TTNN, mask, zeros=None, may_hide_all=False):
    """The additive mask at full query and key length: adding broadcasts in one kernel, where expand takes three.

    A row of -inf would be NaN, and so what all others read of it in the next layer, times zero. With numbers this low
    it is the mean of the values instead, where torch has zeros; nobody reads that.
    """
    mask = mask if zeros is None else ttnn.add(mask, zeros)
    return ttnn.maximum(mask, -LARGEST) if may_hide_all else mask


@lower(operators.linear_attention)
def linear_attention(ttnn: TTNN, query: Tensor, key: Tensor, value: Tensor, eps):
    """query (keyᵀ value) / (query keyᵀ 1 + eps) → [..., query length, head_dim].

    query [..., query length, head_dim]; key, value [..., key length, head_dim].
    """
    config = product_config(ttnn)
    states = ttnn.matmul(key, value, transpose_a=True, **config)
    keys = ttnn.sum(key, dim=-2, keepdim=True, compute_kernel_config=config["compute_kernel_config"])
    results, weights = ttnn.matmul(query, states, **config), ttnn.matmul(query, keys, transpose_b=True, **config)
    plus = [ttnn.UnaryWithParam(ttnn.UnaryOpType.ADD_UNARY_SFPU, eps)]
    return ttnn.divide(results, weights, input_tensor_b_activations=plus)


@lower(operators.split_heads)
def split_heads(ttnn: TTNN, x: Tensor, num_heads, num_kv_heads):
    """x [batch, 1, seq, (heads + 2 kv heads) head_dim] → query, key, value [batch, heads, seq, head_dim].

    TTNN rounds head_dim up to whole tiles without a word; the compiler compares shapes and takes such a split apart.
    """
    if is_sharded(x):
        return _split_shards(ttnn, x, num_heads)
    heads = {"num_heads": num_heads, "num_kv_heads": num_kv_heads}
    return ttnn.experimental.nlp_create_qkv_heads(x, **heads, transpose_k_heads=False, **assigned(ttnn))


@lower(operators.split_lone_heads)
def split_lone_heads(ttnn: TTNN, x: Tensor, num_heads):
    """x [batch, 1, seq, heads head_dim] → [batch, heads, seq, head_dim]: queries of the kernel, without keys."""
    heads = {"num_heads": num_heads, "num_kv_heads": 0}
    return ttnn.experimental.nlp_create_qkv_heads(x, **heads, transpose_k_heads=False, **assigned(ttnn))[0]


@lower(operators.split_key_value)
def split_key_value(ttnn: TTNN, x: Tensor, num_heads):
    """x [batch, 1, seq, heads (key, value) head_dim] → key, value [batch, heads, seq, head_dim].

    TTNN's kernel takes each head's columns apart, as queries with columns that are turned and others have them.
    """
    head_dim = x.shape[-1] // (2 * num_heads)
    return ttnn.experimental.nlp_create_q_heads_split(x, num_heads=num_heads, split_head_dim=head_dim, **assigned(ttnn))


def _split_shards(ttnn: TTNN, x: Tensor, num_heads):
    """The same of block shards, which TTNN reads for the heads of ViT-base alone (`operators.splits_shards`).

    It counts what pads the rows as rows of the results; they are views of so many less.
    """
    where = assigned(ttnn) or {"memory_config": ttnn.DRAM_MEMORY_CONFIG}
    parts = ttnn.experimental.nlp_create_qkv_heads_vit(x, **where)
    batch, _, seq, width = x.shape
    shape = (batch, num_heads, seq, width // (3 * num_heads))
    return tuple(part if part.shape == shape else ttnn.reshape(part, shape, part.shape) for part in parts)


@lower(operators.rotary)
def rotary(ttnn: TTNN, x: Tensor, cos: Tensor, sin: Tensor):
    """x [batch, heads, seq, head_dim] turned by cos, sin [batch or 1, 1, seq, head_dim], half with half.

    TTNN pairs columns of the padded head, so one that does not fill its tiles would silently be paired wrongly.
    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864
    """
    check_whole_tiles(x)

    def turned(x, cos, sin):
        options = {"is_decode_mode": False, "compute_kernel_config": ttnn.settings.compute_kernel_config}
        return ttnn.experimental.rotary_embedding_hf(x, cos, sin, **options)

    return _as_one_sequence(ttnn, turned, x, cos, sin)


@lower(operators.rotary_by_matrix)
def rotary_by_matrix(ttnn: TTNN, x: Tensor, cos: Tensor, sin: Tensor, matrix: Tensor):
    """x cos + (x @ matrix) sin, where the matrix [1, 1, n, n] is that of a whole head, or of each of its tiles."""
    if matrix.shape[-1] == x.shape[-1] != TILE:
        product = matmul(ttnn, x, matrix)
        return ttnn.add(ttnn.multiply(x, cos), ttnn.multiply(product, sin))

    def turned_by_tiles(x, cos, sin):
        return turn_by_tiles(ttnn, x, cos, sin, matrix, is_decode_mode=False)

    return _as_one_sequence(ttnn, turned_by_tiles, x, cos, sin)


def turn_by_tiles(ttnn: TTNN, x: Tensor, cos: Tensor, sin: Tensor, matrix: Tensor, is_decode_mode):
    """x cos + (each tile of x @ matrix) sin. Long heads fit the registers of TTNN's kernel in bfloat16 only."""

    def turn(accumulation):
        config = ttnn.settings.compute_kernel_config
        if accumulation == "bfloat16":
            config = compute_kernel_config(ttnn, config.math_fidelity, float32=False)
        options = {"is_decode_mode": is_decode_mode, "compute_kernel_config": config}
        return ttnn.experimental.rotary_embedding_llama(x, cos, sin, matrix, **options)

    asked = ("rotary_embedding_llama", x, cos, sin, matrix, is_decode_mode)
    return ttnn.choose(asked, ("float32", "bfloat16"), turn)


def _as_one_sequence(ttnn: TTNN, turned, x: Tensor, cos: Tensor, sin: Tensor):
    """Where each of the batch has positions of its own: all their sequences one after another, as TTNN takes them."""
    batch, heads, seq, head_dim = x.shape
    if cos.shape[0] == 1:
        return turned(x, cos, sin)
    order = (1, 0, 2, 3)
    rows = ttnn.reshape(ttnn.permute(x, order), (1, heads, batch * seq, head_dim))
    cos, sin = (ttnn.reshape(table, (1, 1, batch * seq, head_dim)) for table in (cos, sin))
    return ttnn.permute(ttnn.reshape(turned(rows, cos, sin), (heads, batch, seq, head_dim)), order)
