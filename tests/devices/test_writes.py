"""Operations that write into a tensor: what changes, who sees it, and who must not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rounded_once import packed_on_device

from tt_dynamo.devices import EmulationError
from tt_dynamo.devices.emulation import namespace as emulation_module
from tt_dynamo.devices.emulation.writes import UNDEFINED_PADDING, WRITES

Upload = Callable[..., Any]
Random = Callable[..., torch.Tensor]
Place = Callable[..., Any]


@pytest.fixture
def shard(ttnn: Any, emulated: Any, device: Any) -> Place:
    """Height shard [1, users, heads, head_dim] on one core a user, from core `first` on."""

    def shard(tensor: Any, first: int = 0) -> Any:
        _one, users, heads, width = tuple(tensor.padded_shape)
        cores = ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(first, 0), ttnn.CoreCoord(first + users - 1, 0))})
        spec = ttnn.ShardSpec(cores, [heads, width], ttnn.ShardOrientation.ROW_MAJOR)
        layout = ttnn.TensorMemoryLayout.HEIGHT_SHARDED
        return emulated.to_memory_config(tensor, ttnn.MemoryConfig(layout, ttnn.BufferType.L1, spec))

    return shard


@pytest.fixture
def indices(ttnn: Any, upload: Upload) -> Callable[..., Any]:
    return lambda *positions: upload(torch.tensor(positions, dtype=torch.int32), ttnn.int32, ttnn.ROW_MAJOR_LAYOUT)


# --- who sees a write -----------------------------------------------------------------------------------------------


def test_every_view_of_a_buffer_sees_a_write(emulated: Any, upload: Upload, random: Random) -> None:
    cache, rows = upload(torch.zeros(2, 3, 64, 32)), random(1, 3, 32, 32)
    view = emulated.reshape(cache, (1, 6, 64, 32))
    assert view.buffer_address() == cache.buffer_address(), "TTNN copies here: the test needs another view"
    result = emulated.fill_cache(cache, upload(rows), 1)
    expected = torch.zeros(2, 3, 64, 32)
    expected[1, :, :32] = rows[0]
    for tensor in (cache, result):
        assert torch.equal(tensor.value, expected)
    assert torch.equal(view.value, expected.reshape(1, 6, 64, 32))
    assert torch.equal(emulated.to_torch(view).float(), expected.reshape(1, 6, 64, 32))


def test_the_base_sees_a_write_through_its_view(emulated: Any, upload: Upload, random: Random) -> None:
    cache, rows = upload(torch.zeros(2, 3, 64, 32)), random(1, 6, 64, 32)
    emulated.fill_cache(emulated.reshape(cache, (1, 6, 64, 32)), upload(rows), 0)
    assert torch.equal(cache.value, rows.reshape(2, 3, 64, 32))
    emulated.fill_cache(cache, upload(torch.zeros(1, 3, 64, 32)), 0)
    assert torch.equal(emulated.reshape(cache, (1, 2, 3, 64, 32)).value[0, 1], rows[0, 3:])


def test_copies_taken_before_and_after_a_write_do_not_see_the_next(
    ttnn: Any, emulated: Any, upload: Upload, random: Random
) -> None:
    first, second = random(1, 2, 32, 32), random(1, 2, 32, 32)
    cache = upload(torch.zeros(1, 2, 32, 32))
    before = emulated.to_memory_config(cache, ttnn.L1_MEMORY_CONFIG)
    emulated.fill_cache(cache, upload(first), 0)
    after = emulated.to_memory_config(cache, ttnn.L1_MEMORY_CONFIG)
    row = emulated.slice(cache, [0, 0, 0, 0], [1, 2, 1, 32])
    read = emulated.to_torch(cache)
    emulated.fill_cache(cache, upload(second), 0)
    assert torch.equal(before.value, torch.zeros(1, 2, 32, 32))
    assert torch.equal(after.value, first) and torch.equal(read.float(), first)
    assert torch.equal(row.value, first[:, :, :1])
    assert torch.equal(cache.value, second)


def test_a_copy_of_float32_does_not_see_later_writes(ttnn: Any, emulated: Any, upload: Upload, random: Random) -> None:
    """float32 values need no rounding: nothing but a copy on purpose keeps them apart."""
    first = random(1, 2, 32, 32)
    cache = upload(torch.zeros(1, 2, 32, 32), ttnn.float32)
    emulated.fill_cache(cache, upload(first, ttnn.float32), 0)
    copies = [emulated.to_memory_config(cache, ttnn.L1_MEMORY_CONFIG), emulated.clone(cache)]
    emulated.fill_cache(cache, upload(torch.zeros(1, 2, 32, 32), ttnn.float32), 0)
    assert all(torch.equal(copy.value, first) for copy in copies)


def test_the_tensor_written_from_stays_as_it_was(emulated: Any, upload: Upload, random: Random) -> None:
    first, second = random(1, 2, 32, 32), random(1, 2, 32, 32)
    cache, source = upload(torch.zeros(1, 2, 32, 32)), upload(first)
    emulated.fill_cache(cache, source, 0)
    emulated.fill_cache(cache, upload(second), 0)
    assert torch.equal(source.value, first)


def test_a_view_that_pads_can_not_be_read_after_a_write(emulated: Any, upload: Upload) -> None:
    cache = upload(torch.zeros(1, 2, 50, 32))
    view = emulated.pad(cache, [(0, 0), (0, 0), (0, 14), (0, 0)], 0.0)
    assert view.buffer_address() == cache.buffer_address(), "TTNN copies here: the test needs another view"
    emulated.fill_cache(cache, upload(torch.ones(1, 2, 32, 32)), 0)
    with pytest.raises(EmulationError, match=r"was written to through one of shape \(1, 2, 50, 32\)"):
        view.value  # noqa: B018


def test_a_write_in_inference_mode_can_be_written_over_outside(emulated: Any, upload: Upload) -> None:
    cache = upload(torch.zeros(1, 2, 32, 32))
    with torch.inference_mode():
        emulated.fill_cache(cache, upload(torch.ones(1, 2, 32, 32)), 0)
    emulated.fill_cache(cache, upload(torch.full((1, 2, 32, 32), 2.0)), 0)
    assert torch.equal(cache.value, torch.full((1, 2, 32, 32), 2.0))


def test_a_refused_write_changes_nothing(ttnn: Any, emulated: Any, upload: Upload) -> None:
    cache = upload(torch.zeros(1, 2, 32, 32))
    with pytest.raises(RuntimeError, match="same dtype"):
        emulated.fill_cache(cache, upload(torch.ones(1, 2, 32, 32), ttnn.float32), 0)
    assert torch.equal(cache.value, torch.zeros(1, 2, 32, 32))


# --- prefill --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [128, 100])
def test_fill_cache_writes_whole_tiles(emulated: Any, upload: Upload, random: Random, length: int) -> None:
    before, rows = random(2, 3, length, 64), random(1, 3, 64, 64)
    cache = upload(before)
    emulated.fill_cache(cache, upload(rows), 1)
    before[1, :, :64] = rows[0]
    assert torch.equal(cache.value, before)


def test_fill_cache_writes_the_zeros_that_pad_an_uploaded_tensor(emulated: Any, upload: Upload, random: Random) -> None:
    before, rows = random(1, 3, 128, 64), random(1, 3, 50, 64)
    cache = upload(before)
    emulated.fill_cache(cache, upload(rows), 0)
    assert torch.equal(cache.value[:, :, :50], rows)
    assert torch.equal(cache.value[:, :, 50:64], torch.zeros(1, 3, 14, 64))
    assert torch.equal(cache.value[:, :, 64:], before[:, :, 64:])


def test_fill_cache_writes_padding_that_is_not_known_as_such(emulated: Any, upload: Upload, random: Random) -> None:
    cache, rows = upload(torch.zeros(1, 3, 60, 64)), random(1, 3, 50, 64)
    emulated.fill_cache(cache, emulated.add(upload(rows), 0.0), 0)
    assert torch.equal(cache.value[:, :, :50], rows)
    assert torch.equal(cache.value[:, :, 50:], torch.full((1, 3, 10, 64), UNDEFINED_PADDING))


def test_padding_filled_on_purpose_stays_known_through_the_heads(
    ttnn: Any, emulated: Any, upload: Upload, random: Random
) -> None:
    qkv = random(1, 1, 50, 4 * 64)
    filled = emulated.fill_implicit_tile_padding(emulated.add(upload(qkv), 0.0), 0.0)
    _, key, _ = emulated.experimental.nlp_create_qkv_heads(filled, num_heads=2, num_kv_heads=1, transpose_k_heads=False)
    key = emulated.typecast(key, ttnn.bfloat8_b)
    cache = upload(random(1, 1, 96, 64), ttnn.bfloat8_b)
    emulated.fill_cache(cache, key, 0)
    assert torch.equal(cache.value[:, :, :50], key.value)
    assert torch.equal(cache.value[:, :, 50:64], torch.zeros(1, 1, 14, 64))


def test_padding_stays_known_in_a_slice_of_whole_tiles_alone(emulated: Any, upload: Upload, random: Random) -> None:
    rows = upload(random(2, 2, 50, 64))
    assert emulated.slice(rows, (1, 0, 0, 0), (2, 2, 50, 64)).padding == 0.0
    assert emulated.slice(rows, (0, 0, 0, 0), (2, 2, 40, 64)).padding is None


# --- decode ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [64, 50])
def test_paged_update_cache_writes_a_row_of_each_user(
    emulated: Any, upload: Upload, random: Random, shard: Place, indices: Upload, length: int
) -> None:
    before, tokens, positions = random(3, 2, length, 64), random(1, 3, 2, 64), (0, 49, 31)
    cache = upload(before)
    result = emulated.experimental.paged_update_cache(
        cache, shard(upload(tokens)), update_idxs_tensor=indices(*positions)
    )
    for user, position in enumerate(positions):
        before[user, :, position] = tokens[0, user]
    assert torch.equal(cache.value, before) and torch.equal(result.value, before)


def test_paged_fused_update_cache_writes_a_row_of_each_user_into_two_caches(
    emulated: Any, upload: Upload, random: Random, shard: Place, indices: Upload
) -> None:
    before, tokens = [random(3, 2, 64, 64) for _ in range(2)], [random(1, 3, 2, 64) for _ in range(2)]
    caches = [upload(cache) for cache in before]
    first, second = (shard(upload(rows), at) for at, rows in zip((0, 3), tokens, strict=True))
    positions = (0, 49, 31)
    results = emulated.experimental.paged_fused_update_cache(
        caches[0], first, caches[1], second, update_idxs_tensor=indices(*positions)
    )
    for cache, result, expected, rows in zip(caches, results, before, tokens, strict=True):
        for user, position in enumerate(positions):
            expected[user, :, position] = rows[0, user]
        assert torch.equal(cache.value, expected) and torch.equal(result.value, expected)


def test_paged_update_cache_skips_users_at_minus_one(
    emulated: Any, upload: Upload, random: Random, shard: Place, indices: Upload
) -> None:
    before, tokens = random(3, 2, 64, 64), random(1, 3, 2, 64)
    cache = upload(before)
    emulated.experimental.paged_update_cache(cache, shard(upload(tokens)), update_idxs_tensor=indices(-1, 5, -1))
    before[1, :, 5] = tokens[0, 1]
    assert torch.equal(cache.value, before)


def test_paged_update_cache_beyond_the_cache_is_an_error(
    emulated: Any, upload: Upload, random: Random, shard: Place, indices: Upload
) -> None:
    cache, tokens = upload(torch.zeros(2, 2, 50, 64)), shard(upload(random(1, 2, 2, 64)))
    with pytest.raises(EmulationError, match="writes rows 50 to 50 of a cache that has 50 rows"):
        emulated.experimental.paged_update_cache(cache, tokens, update_idxs_tensor=indices(3, 50))
    assert not cache.value.any()


def test_paged_update_cache_refuses_what_it_does_not_know(
    emulated: Any, upload: Upload, shard: Place, indices: Upload
) -> None:
    cache, tokens = upload(torch.zeros(1, 2, 64, 64)), shard(upload(torch.ones(1, 2, 2, 64)))
    with pytest.raises(TypeError, match="share_cache"):
        emulated.experimental.paged_update_cache(cache, tokens, update_idxs_tensor=indices(1, 2), share_cache=True)


def test_rows_written_to_a_block_float_cache_are_packed_and_nothing_else_is(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, shard: Place, indices: Upload, monkeypatch: Any
) -> None:
    cache, tokens = upload(random(2, 2, 2048, 64), ttnn.bfloat8_b), random(1, 2, 2, 64)
    before = cache.value.clone()
    placed, where = shard(upload(tokens)), indices(1, 1000)
    rounded: list[int] = []
    round_to = emulation_module.round_to

    def counted(ttnn: Any, value: torch.Tensor, dtype: Any) -> torch.Tensor:
        rounded.append(value.numel())
        return round_to(ttnn, value, dtype)

    monkeypatch.setattr(emulation_module, "round_to", counted)
    emulated.experimental.paged_update_cache(cache, placed, update_idxs_tensor=where)
    assert rounded == [2 * 2 * 64], "the cost of a step grows with the cache"
    packed = packed_on_device(tokens, "bfloat8_b")
    assert not torch.equal(packed, tokens), "every value fits: the test needs others"
    before[0, :, 1], before[1, :, 1000] = packed[0, 0], packed[0, 1]
    assert torch.equal(cache.value, before)


def test_only_the_first_write_copies_the_cache(emulated: Any, upload: Upload, random: Random) -> None:
    cache, rows = upload(random(2, 2, 64, 64)), upload(random(1, 2, 32, 64))
    emulated.fill_cache(cache, rows, 0)
    storage = cache.value.data_ptr()
    emulated.fill_cache(cache, rows, 1)
    assert cache.value.data_ptr() == storage


def test_every_write_is_tested() -> None:
    text = Path(__file__).read_text()
    assert [name for name in WRITES if f"emulated.{name.removeprefix('ttnn.')}(" not in text] == []
