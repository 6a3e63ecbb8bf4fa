"""Operations that write into a tensor: what changes, who sees it, and who must not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

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
    assert torch.equal(emulated.unsqueeze(cache, 0).value[0, 1], rows[0, 3:])


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
def test_fill_cache_writes_whole_tiles_from_a_row_on(
    emulated: Any, upload: Upload, random: Random, length: int
) -> None:
    before, rows = random(2, 3, length, 64), random(1, 3, 64, 64)
    cache = upload(before)
    emulated.fill_cache(cache, upload(rows), 1, update_idx=32)
    before[1, :, 32:96] = rows[0]
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


def test_paged_fill_cache_goes_by_the_page_table(ttnn: Any, emulated: Any, upload: Upload, random: Random) -> None:
    before, rows = random(6, 2, 32, 64), random(1, 2, 64, 64)
    table = torch.tensor([[5, 0, 1], [4, 2, 3]], dtype=torch.int32)
    cache = upload(before)
    pages = upload(table, ttnn.int32, ttnn.ROW_MAJOR_LAYOUT)
    emulated.experimental.paged_fill_cache(cache, upload(rows), pages, batch_idx=1)
    before[4], before[2] = rows[0, :, :32], rows[0, :, 32:]
    assert torch.equal(cache.value, before)


def test_padding_stays_known_in_a_slice_of_whole_tiles_alone(emulated: Any, upload: Upload, random: Random) -> None:
    rows = upload(random(2, 2, 50, 64))
    assert emulated.slice(rows, (1, 0, 0, 0), (2, 2, 50, 64)).padding == 0.0
    assert emulated.slice(rows, (0, 0, 0, 0), (2, 2, 40, 64)).padding is None


@pytest.mark.parametrize("length", [96, 60])
def test_paged_fill_cache_of_one_block_a_user_fills_the_caches_of_all(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, indices: Upload, length: int
) -> None:
    before, rows = random(3, 2, length, 64), random(3, 2, 50, 64)
    cache, table = upload(before), upload(torch.arange(3)[:, None], ttnn.int32, ttnn.ROW_MAJOR_LAYOUT)
    emulated.experimental.paged_fill_cache(cache, upload(rows), table, batch_idx_tensor=indices(0, 1, 2))
    before[:, :, :50], before[:, :, 50:64] = rows, 0.0
    assert torch.equal(cache.value, before)


def test_blocks_that_do_not_hold_what_is_written_are_an_error(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, shard: Place, indices: Upload
) -> None:
    cache, pages = upload(torch.zeros(4, 2, 32, 64)), upload(torch.ones(1, 2), ttnn.int32, ttnn.ROW_MAJOR_LAYOUT)
    with pytest.raises(EmulationError, match="row 64 is beyond the 2 blocks of 32"):
        emulated.experimental.paged_update_cache(
            cache, shard(upload(random(1, 1, 2, 64))), update_idxs_tensor=indices(64), page_table=pages
        )
    with pytest.raises(NotImplementedError, match="blocks of 50 rows"):
        emulated.experimental.paged_fill_cache(upload(torch.zeros(4, 2, 50, 64)), upload(random(1, 2, 32, 64)), pages)
    assert not cache.value.any()


# --- decode ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [64, 50])
@pytest.mark.parametrize("listed", [True, False])
def test_paged_update_cache_writes_a_row_of_each_user(
    emulated: Any, upload: Upload, random: Random, shard: Place, indices: Upload, length: int, listed: bool
) -> None:
    before, tokens, positions = random(3, 2, length, 64), random(1, 3, 2, 64), (0, 49, 31)
    cache = upload(before)
    where = {"update_idxs": list(positions)} if listed else {"update_idxs_tensor": indices(*positions)}
    result = emulated.experimental.paged_update_cache(cache, shard(upload(tokens)), **where)
    for user, position in enumerate(positions):
        before[user, :, position] = tokens[0, user]
    assert torch.equal(cache.value, before) and torch.equal(result.value, before)


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


def test_paged_update_cache_goes_by_the_page_table(
    ttnn: Any, emulated: Any, upload: Upload, random: Random, shard: Place, indices: Upload
) -> None:
    before, tokens = random(6, 2, 32, 64), random(1, 2, 2, 64)
    table = torch.tensor([[5, 0, 1], [4, 2, 3]], dtype=torch.int32)
    cache = upload(before)
    pages = upload(table, ttnn.int32, ttnn.ROW_MAJOR_LAYOUT)
    emulated.experimental.paged_update_cache(
        cache, shard(upload(tokens)), update_idxs_tensor=indices(33, 70), page_table=pages
    )
    before[0, :, 1], before[3, :, 6] = tokens[0, 0], tokens[0, 1]
    assert torch.equal(cache.value, before)


def test_paged_update_cache_refuses_what_it_does_not_know(
    emulated: Any, upload: Upload, shard: Place, indices: Upload
) -> None:
    cache, tokens = upload(torch.zeros(1, 2, 64, 64)), shard(upload(torch.ones(1, 2, 2, 64)))
    with pytest.raises(NotImplementedError, match="share_cache="):
        emulated.experimental.paged_update_cache(cache, tokens, update_idxs_tensor=indices(1, 2), share_cache=True)


def test_paged_fused_update_cache_writes_both_caches(
    emulated: Any, upload: Upload, random: Random, shard: Place, indices: Upload
) -> None:
    before, tokens = [random(2, 2, 64, 64) for _ in range(2)], [random(1, 2, 2, 64) for _ in range(2)]
    caches = [upload(value) for value in before]
    key, value = shard(upload(tokens[0])), shard(upload(tokens[1]), first=4)
    emulated.experimental.paged_fused_update_cache(caches[0], key, caches[1], value, update_idxs_tensor=indices(7, 63))
    for expected, written, cache in zip(before, tokens, caches, strict=True):
        expected[0, :, 7], expected[1, :, 63] = written[0, 0], written[0, 1]
        assert torch.equal(cache.value, expected)


def test_update_cache_writes_one_row_for_all_users(emulated: Any, upload: Upload, random: Random) -> None:
    before, tokens = random(3, 2, 64, 64), random(1, 2, 8, 64)
    cache = upload(before)
    emulated.update_cache(cache, upload(tokens), 40, batch_offset=2)
    before[:, :, 40] = tokens[0, :, 2:5].transpose(0, 1)
    assert torch.equal(cache.value, before)
    with pytest.raises(EmulationError, match="3 users takes 2 tokens"):
        emulated.update_cache(cache, upload(tokens[:, :, :2]), 40)


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
    packed = ttnn.from_torch(tokens, dtype=ttnn.bfloat8_b, layout=ttnn.TILE_LAYOUT).to_torch()
    assert not torch.equal(packed, tokens), "every value fits: the test needs others"
    before[0, :, 1], before[1, :, 1000] = packed[0, 0], packed[0, 1]
    assert torch.equal(cache.value, before)


def test_only_the_first_write_copies_the_cache(emulated: Any, upload: Upload, random: Random) -> None:
    cache, tokens = upload(random(2, 2, 64, 64)), upload(random(1, 2, 2, 64))
    emulated.update_cache(cache, tokens, 3)
    storage = cache.value.data_ptr()
    emulated.update_cache(cache, tokens, 4)
    assert cache.value.data_ptr() == storage


# --- whole tensors --------------------------------------------------------------------------------------------------


def test_plus_one_counts_positions_in_place(emulated: Any, indices: Upload) -> None:
    positions, largest = indices(-2, -1, 0, 7), torch.iinfo(torch.int32).max
    emulated.plus_one(positions)
    assert positions.value.tolist() == [-1, 0, 1, 8]
    sentinels = indices(-1, 5, largest)
    emulated.plus_one(sentinels, skip_negative_entries=True)
    assert sentinels.value.tolist() == [-1, 6, largest]


def test_copy_rounds_to_the_dtype_of_its_target(ttnn: Any, emulated: Any, upload: Upload) -> None:
    source, target = upload(torch.full((2, 32), 1.001), ttnn.float32), upload(torch.zeros(2, 32))
    emulated.copy(source, target)
    assert torch.equal(target.value, torch.ones(2, 32))


def test_copy_host_to_device_tensor_replaces_what_was_there(
    ttnn: Any, emulated: Any, upload: Upload, random: Random
) -> None:
    source = random(2, 50)
    target, host = upload(torch.zeros(2, 50)), emulated.from_torch(source, ttnn.bfloat16, layout=ttnn.TILE_LAYOUT)
    assert emulated.copy_host_to_device_tensor(host, target) is None
    assert torch.equal(target.value, source)
    with pytest.raises(RuntimeError, match="different shape"):
        emulated.copy_host_to_device_tensor(host, upload(torch.zeros(2, 32)))


def test_copy_device_to_host_tensor_reads_into_what_is_there(
    ttnn: Any, emulated: Any, upload: Upload, random: Random
) -> None:
    source = random(2, 50)
    host = emulated.from_torch(torch.zeros(2, 50), ttnn.bfloat16, layout=ttnn.TILE_LAYOUT)
    assert emulated.copy_device_to_host_tensor(upload(source), host) is None
    assert torch.equal(emulated.to_torch(host).float(), source)


def test_every_write_is_tested() -> None:
    text = Path(__file__).read_text()
    assert [name for name in WRITES if f"emulated.{name.removeprefix('ttnn.')}(" not in text] == []
