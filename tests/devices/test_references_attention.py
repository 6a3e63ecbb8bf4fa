"""Attention and its heads against torch's own formulas, above all in decode: one token a user, against a cache."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from rounded_once import check
from torch.nn import functional

Upload = Callable[..., Any]
Random = Callable[..., torch.Tensor]


@pytest.fixture
def decode(ttnn: Any, emulated: Any, upload: Upload) -> Callable[..., Any]:
    """scaled_dot_product_attention_decode of torch tensors, bfloat16 in tiles, and of positions."""

    def decode(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, positions: Sequence[int] | None = None, **options: Any
    ) -> Any:
        placed = {key: upload(value) if isinstance(value, torch.Tensor) else value for key, value in options.items()}
        if positions is not None:
            placed["cur_pos_tensor"] = upload(torch.tensor(positions), ttnn.int32, ttnn.ROW_MAJOR_LAYOUT)
        return emulated.transformer.scaled_dot_product_attention_decode(upload(q), upload(k), upload(v), **placed)

    return decode


def attended(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, position: int, first: int = 0, **options: Any
) -> torch.Tensor:
    """One user's q [heads, head_dim] against rows `first` to `position` of k and v [kv heads, length, head_dim]."""
    k, v = (x[:, first : position + 1].repeat_interleave(q.shape[0] // k.shape[0], 0) for x in (k, v))
    return functional.scaled_dot_product_attention(q[:, None], k, v, **options)[:, 0]


# --- decode ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kv_heads", [1, 2, 8])
@pytest.mark.parametrize("positions", [(5, 5), (0, 63), (40, 7)])
def test_each_user_reads_the_rows_up_to_its_position(
    decode: Any, random: Random, kv_heads: int, positions: tuple[int, ...]
) -> None:
    q, k, v = random(1, 2, 8, 64), random(2, kv_heads, 64, 64), random(2, kv_heads, 64, 64)
    found = decode(q, k, v, positions)
    check(found, torch.stack([attended(q[0, i], k[i], v[i], p) for i, p in enumerate(positions)])[None])


def test_positions_may_be_on_the_device_and_skip_a_user(
    ttnn: Any, emulated: Any, upload: Upload, random: Random
) -> None:
    q, k, v = random(1, 3, 4, 64), random(3, 2, 64, 64), random(3, 2, 64, 64)
    positions = upload(torch.tensor([9, -1, 33]), ttnn.int32, ttnn.ROW_MAJOR_LAYOUT)
    found = emulated.transformer.scaled_dot_product_attention_decode(
        upload(q), upload(k), upload(v), cur_pos_tensor=positions, scale=0.3
    )
    expected = [attended(q[0, i], k[i], v[i], p, scale=0.3) for i, p in ((0, 9), (2, 33))]
    check(found, torch.stack([expected[0], torch.zeros(4, 64), expected[1]])[None])


@pytest.mark.parametrize("positions", [(10, 100, 64), (64, 100, 70)])
def test_a_window_leaves_the_last_rows_of_each_user(decode: Any, random: Random, positions: tuple[int, ...]) -> None:
    q, k, v = random(1, 3, 4, 64), random(3, 2, 128, 64), random(3, 2, 128, 64)
    found = decode(q, k, v, positions, sliding_window_size=32)
    expected = [attended(q[0, i], k[i], v[i], p, max(0, p - 31)) for i, p in enumerate(positions)]
    check(found, torch.stack(expected)[None])


@pytest.mark.parametrize("users", [1, 2])
def test_a_mask_says_which_rows_are_read(decode: Any, random: Random, users: int) -> None:
    q, k, v = random(1, 2, 4, 64), random(2, 2, 64, 64), random(2, 2, 64, 64)
    mask = torch.zeros(users, 1, 4, 64).masked_fill(torch.arange(64) % 3 == 0, -torch.inf)
    mask[0, :, :, 40:] = -torch.inf
    found = decode(q, k, v, is_causal=False, attn_mask=mask)
    expected = [attended(q[0, i], k[i], v[i], 63, attn_mask=mask[i % users, 0][:, None]) for i in range(2)]
    check(found, torch.stack(expected)[None])


def test_the_kernel_scales_the_mask_too(decode: Any, random: Random) -> None:
    q, k, v, mask = random(1, 1, 4, 64), random(1, 4, 64, 64), random(1, 4, 64, 64), random(1, 1, 4, 64)
    found = decode(q, k, v, is_causal=False, attn_mask=mask, scale=0.5)
    check(found, attended(q[0, 0], k[0], v[0], 63, attn_mask=mask[0, 0][:, None] * 0.5, scale=0.5)[None, None])


def test_what_stands_beyond_the_position_is_not_read(decode: Any, random: Random) -> None:
    q, k, v = random(1, 1, 4, 64), random(1, 2, 64, 64), random(1, 2, 64, 64)
    k[:, :, 20:], v[:, :, 20:] = torch.nan, torch.nan
    check(decode(q, k, v, [19]), attended(q[0, 0], k[0], v[0], 19)[None, None])


def test_decode_refuses_what_the_kernel_reads_otherwise(ttnn: Any, device: Any, decode: Any, random: Random) -> None:
    q, k = random(1, 2, 4, 64), random(2, 2, 50, 64)
    grid = device.handle.compute_with_storage_grid_size()
    chunks = ttnn.SDPAProgramConfig(compute_with_storage_grid_size=grid, q_chunk_size=0, k_chunk_size=32)
    with pytest.raises(NotImplementedError, match="50 rows, not a multiple of 32"):
        decode(q, k, k, is_causal=False, program_config=chunks)
    with pytest.raises(NotImplementedError, match="of a window"):
        decode(q, random(2, 2, 64, 64), random(2, 2, 64, 64), is_causal=False, sliding_window_size=8)
    with pytest.raises(NotImplementedError, match="position 50 of a cache that has 50 rows"):
        decode(q, k, k, [0, 50], program_config=chunks)
    with pytest.raises(NotImplementedError, match="users are in dimension 0"):
        decode(q, random(2, 2, 64, 64), random(2, 2, 64, 64), is_causal=False, attn_mask=random(1, 2, 4, 64))


@pytest.mark.parametrize("kv_heads", [1, 2, 8])
def test_decode_splits_heads(ttnn: Any, emulated: Any, upload: Upload, random: Random, kv_heads: int) -> None:
    x = random(1, 1, 3, (8 + 2 * kv_heads) * 64)
    found = emulated.experimental.nlp_create_qkv_heads_decode(upload(x), num_heads=8, num_kv_heads=kv_heads)
    parts = x[0, 0].split([8 * 64, kv_heads * 64, kv_heads * 64], dim=-1)
    for tensor, expected in zip(found, parts, strict=True):
        check(tensor, expected.reshape(1, 3, -1, 64))


def test_decode_merges_heads_of_32_users_each_on_a_core(
    ttnn: Any, emulated: Any, upload: Upload, random: Random
) -> None:
    x = random(1, 32, 8, 64)
    cores = ttnn.CoreRangeSet([ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(7, 3))])
    shard = ttnn.ShardSpec(cores, [32, 64], ttnn.ShardOrientation.ROW_MAJOR)
    place = ttnn.MemoryConfig(ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1, shard)
    by_user = emulated.to_memory_config(upload(x), place)
    check(emulated.experimental.nlp_concat_heads_decode(by_user, num_heads=8), x.reshape(1, 1, 32, -1))


def test_decode_against_a_cache_filled_and_updated_in_place(
    ttnn: Any, emulated: Any, upload: Upload, random: Random
) -> None:
    """Three tokens one after the other read what prefill and the tokens before them wrote."""
    k, v, q = random(2, 2, 35, 64), random(2, 2, 35, 64), random(3, 2, 4, 64)
    caches = [upload(torch.zeros(2, 2, 64, 64)) for _ in range(2)]
    for cache, rows in zip(caches, (k, v), strict=True):
        for user in range(2):
            emulated.fill_cache(cache, upload(rows[user : user + 1, :, :32]), user)
    cores = ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(1, 0))})
    by_user = ttnn.MemoryConfig(
        ttnn.TensorMemoryLayout.HEIGHT_SHARDED,
        ttnn.BufferType.L1,
        ttnn.ShardSpec(cores, [32, 64], ttnn.ShardOrientation.ROW_MAJOR),
    )
    for step in range(3):
        positions = upload(torch.tensor([32 + step] * 2), ttnn.int32, ttnn.ROW_MAJOR_LAYOUT)
        for cache, rows in zip(caches, (k, v), strict=True):
            token = emulated.to_memory_config(upload(rows[:, :, 32 + step][None]), by_user)
            emulated.experimental.paged_update_cache(cache, token, update_idxs_tensor=positions)
        found = emulated.transformer.scaled_dot_product_attention_decode(
            upload(q[step][None]), *caches, cur_pos_tensor=positions
        )
        check(found, torch.stack([attended(q[step, i], k[i], v[i], 32 + step) for i in range(2)])[None])


# --- prefill --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concat", [False, True])
@pytest.mark.parametrize("reach", [None, 8])
def test_attention_of_grouped_heads_in_a_window(
    emulated: Any, upload: Upload, random: Random, reach: int | None, concat: bool
) -> None:
    q, k, v = random(2, 8, 50, 64), random(2, 2, 50, 64), random(2, 2, 50, 64)
    found = emulated.transformer.scaled_dot_product_attention(
        upload(q), upload(k), upload(v), is_causal=True, sliding_window_size=reach, output_concat_heads=concat
    )
    visible = torch.ones(50, 50, dtype=torch.bool).tril().triu(1 - (reach or 50))
    scores = (q @ k.repeat_interleave(4, 1).mT / 8).masked_fill(~visible, -torch.inf)
    expected = scores.softmax(-1) @ v.repeat_interleave(4, 1)
    check(found, expected.transpose(1, 2).reshape(2, 1, 50, 512) if concat else expected)
