"""Recurrences along time: ATen node → TTNN calls."""

import math

from tt_dynamo.ir import operators
from tt_dynamo.lowering.matmul import product_config
from tt_dynamo.lowering.memory import first_cores
from tt_dynamo.lowering.registry import TTNN, Need, Tensor, lower

MOST_PARTS = 64


@lower(operators.linear_recurrence, initial=Need("ROW_MAJOR"))
def linear_recurrence(ttnn: TTNN, a: Tensor, b: Tensor, initial: Tensor):
    """h[t] = a[t] h[t - 1] + b[t] for a, b [tokens, ...], in width shards: each core has all tokens of some columns.

    As many columns at once as fit the cores' L1. The kernel leaves the last state where the initial one lay, so that
    goes into shards anew at every call. Source: Gu & Dao 2023, https://arxiv.org/abs/2312.00752
    """
    tokens, *state = b.shape
    width = math.prod(state)
    a, b = (ttnn.reshape(x, (1, 1, tokens, width)) for x in (a, b))
    initial = ttnn.reshape(initial, (1, 1, 1, width))
    wide = math.ceil(width / ttnn.TILE_SIZE)
    candidates = [parts for parts in (1, 2, 4, 8, 16, 32, MOST_PARTS) if parts == 1 or wide % parts == 0]
    key = ("experimental.prefix_scan", a, b, initial)
    states = ttnn.choose(key, candidates, lambda parts: _in_parts(ttnn, parts, a, b, initial))
    return ttnn.reshape(states, (tokens, *state))


def _in_parts(ttnn: TTNN, parts, a: Tensor, b: Tensor, initial: Tensor):
    if parts == 1:
        return _scan(ttnn, a, b, initial)
    size = a.shape[-1] // parts
    columns = [((0, 0, 0, part * size), (part + 1) * size) for part in range(parts)]
    scanned = [
        _scan(ttnn, *(ttnn.slice(x, start, (*x.shape[:-1], end)) for x in (a, b, initial))) for start, end in columns
    ]
    return ttnn.concat(scanned, -1)


def _scan(ttnn: TTNN, a: Tensor, b: Tensor, initial: Tensor):
    *_, tokens, width = a.shape
    cores, tile = math.prod(ttnn.settings.grid_size), ttnn.TILE_SIZE
    shard = math.ceil(math.ceil(width / tile) / cores) * tile
    grid = first_cores(ttnn, math.ceil(width / shard))

    def in_shards(x: Tensor, rows):
        shards = ttnn.ShardSpec(grid, [rows, shard], ttnn.ShardOrientation.ROW_MAJOR)
        layout = ttnn.TensorMemoryLayout.WIDTH_SHARDED
        return ttnn.to_memory_config(x, ttnn.MemoryConfig(layout, ttnn.BufferType.L1, shards))

    rows = math.ceil(tokens / tile) * tile
    states = ttnn.experimental.prefix_scan(in_shards(a, rows), in_shards(b, rows), in_shards(initial, 1))
    return ttnn.to_memory_config(states, ttnn.DRAM_MEMORY_CONFIG)


@lower(operators.segment_decays)
def segment_decays(ttnn: TTNN, steps: Tensor, rates: Tensor, mask: Tensor):
    """exp(sum over s < r <= t of rates steps[r] + mask[t, s]): steps [parts, rows, heads] → [parts, heads, rows, rows].

    The sums are float32: in bfloat16 the difference of two large ones would keep no digit of a small one.
    """
    parts, rows, heads = steps.shape
    sums = ttnn.cumsum(ttnn.multiply(steps, rates, dtype=ttnn.float32), 1)
    sums = ttnn.reshape(sums, (parts, 1, rows, heads))
    between = ttnn.subtract(ttnn.permute(sums, (0, 3, 2, 1)), ttnn.permute(sums, (0, 3, 1, 2)))
    return ttnn.add(between, mask, dtype=ttnn.bfloat16, activations=[ttnn.UnaryWithParam(ttnn.UnaryOpType.EXP)])


@lower(operators.wkv, gaps=Need("TILE", "float32"))
def wkv(ttnn: TTNN, keys: Tensor, values: Tensor, gaps: Tensor):
    """softmax over s of keys[s] + gaps[t, s], times values[s], of each channel: keys [batch, tokens, channels].

    The exponents are float32: in bfloat16 a large key less a large gap would keep no digit.
    """
    batch, tokens, channels = keys.shape
    keys, values = (ttnn.reshape(x, (batch, 1, tokens, channels)) for x in (keys, values))
    keys, values = (ttnn.permute(x, (0, 3, 1, 2)) for x in (keys, values))
    weights = ttnn.softmax(ttnn.add(keys, gaps, dtype=ttnn.float32), -1, numeric_stable=True)
    y = ttnn.matmul(values, weights, transpose_b=True, dtype=values.dtype, **product_config(ttnn))
    return ttnn.reshape(ttnn.permute(y, (0, 2, 3, 1)), (batch, tokens, channels))
