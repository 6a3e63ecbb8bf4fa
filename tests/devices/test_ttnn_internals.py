"""What we read of TTNN that it promises nobody, piece by piece: what fails here after an upgrade says what broke."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tt_dynamo.devices import ttnn_internals as operations
from tt_dynamo.devices.direct import direct
from tt_dynamo.ir import ttnn_internals as words


@pytest.fixture
def empty(ttnn: Any, device: Any) -> Callable[..., Any]:
    """A bfloat16 tensor of that shape, in tiles and in DRAM unless told otherwise."""

    def empty(*shape: int, memory: Any = None) -> Any:
        memory = memory or ttnn.DRAM_MEMORY_CONFIG
        return ttnn.empty(shape, ttnn.bfloat16, ttnn.TILE_LAYOUT, device.handle, memory)

    return empty


def refusal(call: Callable[[], Any]) -> RuntimeError:
    """What TTNN raises."""
    with pytest.raises(RuntimeError) as caught:
        call()
    return caught.value


# --- sentences ------------------------------------------------------------------------------------------------------


def test_ttnns_reason_follows_its_check_and_precedes_its_backtrace(ttnn: Any, empty: Any) -> None:
    error = refusal(lambda: ttnn.matmul(empty(1, 1, 32, 64), empty(1, 1, 32, 64)))
    assert "backtrace:" in str(error)
    reason = words.ttnn_reason(error)
    assert reason.startswith("The width of the first tensor must be equal") and reason.endswith("width=64 height=32")
    assert not words.lacks_room(error) and not words.lacks_dram(error) and not words.lacks_l1_of_all_cores(error, 1)


def test_a_buffer_that_dram_has_no_room_for(empty: Any) -> None:
    error = refusal(lambda: empty(1, 64, 32768, 8192))
    assert words.lacks_dram(error) and words.lacks_room(error)
    assert not words.lacks_l1_of_all_cores(error, 64)


def test_a_buffer_that_l1_has_no_room_for(ttnn: Any, device: Any, empty: Any) -> None:
    error = refusal(lambda: empty(1, 1, 32768, 8192, memory=ttnn.L1_MEMORY_CONFIG))  # 512 MiB
    assert words.lacks_room(error) and not words.lacks_dram(error)
    grid = device.handle.compute_with_storage_grid_size()
    assert words.lacks_l1_of_all_cores(error, grid.x * grid.y)
    assert not words.lacks_l1_of_all_cores(error, 1024)


def test_a_buffer_that_l1_small_has_no_room_for(ttnn: Any, device: Any, empty: Any) -> None:
    size = ttnn.get_memory_view(device.handle, ttnn.BufferType.L1_SMALL).total_bytes_per_bank
    core = ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(0, 0))})
    shards = ttnn.ShardSpec(core, [size, 32], ttnn.ShardOrientation.ROW_MAJOR)
    small = ttnn.MemoryConfig(ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1_SMALL, shards)
    error = refusal(lambda: empty(1, 1, size, 32, memory=small))
    assert words.lacks_l1_small(error) and not words.lacks_dram(error)
    assert not words.lacks_l1_small(refusal(lambda: empty(1, 1, 32768, 8192, memory=ttnn.L1_MEMORY_CONFIG)))


@pytest.fixture
def product(ttnn: Any, empty: Any) -> Callable[[int], Any]:
    """A product whose cores take blocks of so many tiles of its inner dimension at once."""
    a, b = empty(1, 1, 2048, 8192), empty(1, 1, 8192, 2048)

    def product(tiles: int) -> Any:
        config = ttnn.MatmulMultiCoreReuseMultiCastProgramConfig(
            compute_with_storage_grid_size=(8, 8), in0_block_w=tiles, out_subblock_h=1, out_subblock_w=1,
            per_core_M=8, per_core_N=8, transpose_mcast=False, fused_activation=None,
        )  # fmt: skip
        return ttnn.matmul(a, b, program_config=config)

    return product


def test_circular_buffers_that_exceed_l1(product: Any) -> None:
    error = refusal(lambda: product(64))
    assert "beyond max L1" in str(error) and words.lacks_room(error)
    assert not words.lacks_l1_of_all_cores(error, 1)


@pytest.fixture
def full_l1(ttnn: Any, device: Any, empty: Any) -> Iterator[None]:
    """97 % of L1 is held."""
    free = ttnn.get_memory_view(device.handle, ttnn.BufferType.L1).total_bytes_free_per_bank
    grid = device.handle.compute_with_storage_grid_size()
    tiles = int(free * 0.97) // 2048 * grid.x * grid.y
    held = empty(1, 1, 32, tiles * 32, memory=ttnn.L1_MEMORY_CONFIG)
    yield
    ttnn.deallocate(held)


def test_circular_buffers_beside_a_full_l1(ttnn: Any, empty: Any, product: Any, full_l1: None) -> None:
    norm, clash = refusal(lambda: ttnn.layer_norm(empty(1, 1, 32, 8192))), refusal(lambda: product(8))
    assert "circular buffers require" in str(norm) and words.lacks_room(norm)
    assert "clash with L1 buffers" in str(clash) and words.lacks_room(clash)


# --- graph capture --------------------------------------------------------------------------------------------------


def test_a_capture_notes_the_calls_and_what_they_launch_and_allocate(ttnn: Any, empty: Any) -> None:
    x, capture = empty(1, 1, 32, 32), words.graph_capture(ttnn)
    capture.begin_graph_capture(ttnn.graph.RunMode.NORMAL)
    capture.track_function_start("ttnn.ours")
    try:
        ttnn.relu(x)
    finally:
        capture.track_function_end()
        events = capture.end_graph_capture()
    kinds = [event["node_type"] for event in events]
    assert kinds.count("program_execution") == 1
    assert kinds.count("function_start") == kinds.count("function_end") >= 2
    calls = [event["params"]["name"] for event in events if event["node_type"] == "function_start"]
    assert calls[0] == "ttnn.ours"
    (allocated,) = [event["params"] for event in events if event["node_type"] == "buffer_allocate"]
    assert (allocated["type"], int(allocated["size"])) == ("DRAM", 2048)


def test_a_capture_without_dispatch_counts_circular_buffers(ttnn: Any, empty: Any) -> None:
    x, capture = empty(1, 1, 32, 32), words.graph_capture(ttnn)
    capture.begin_graph_capture(ttnn.graph.RunMode.NO_DISPATCH)
    try:
        ttnn.relu(x)
    finally:
        events = capture.end_graph_capture()
    assert int(ttnn.graph.extract_peak_L1_memory_usage(events)) > 0


# --- operations and their golden functions --------------------------------------------------------------------------


def test_operations_know_their_full_name_and_functions_have_none(ttnn: Any) -> None:
    assert operations.operation_name(ttnn.add) == "ttnn.add"
    heads = ttnn.transformer.concatenate_heads
    assert operations.operation_name(heads) == "ttnn.transformer.concatenate_heads"
    assert operations.operation_name(ttnn.from_torch) == "ttnn.from_torch"
    assert operations.operation_name(ttnn.get_memory_view) is None


def test_a_golden_takes_torch_tensors(ttnn: Any) -> None:
    golden = operations.golden_of(ttnn.add)
    assert golden is not None
    assert torch.equal(golden(torch.ones(2), torch.ones(2)), torch.full((2,), 2.0))
    assert operations.golden_of(ttnn.get_memory_view) is None


def test_goldens_of_operations_that_write_say_so(ttnn: Any) -> None:
    assert all(map(operations.writes_to_inputs, (ttnn.copy, ttnn.uniform, ttnn.add_)))
    assert not any(map(operations.writes_to_inputs, (ttnn.add, ttnn.get_memory_view)))


def test_a_preparation_leaves_tensors_that_are_not_ttnns_in_their_places(ttnn: Any) -> None:
    ours = SimpleNamespace(dtype=ttnn.bfloat16)
    prepare = operations.preparation_of("ttnn.add", ttnn.add)
    assert prepare is not None
    args, _ = prepare((ours, ours), {})
    assert args[0] is ours and args[1] is ours


@pytest.mark.parametrize(
    ("source", "dtype", "value", "expected"),
    [
        ("float32", "uint16", 1.6, 2.0),  # the device rounds
        ("bfloat8_b", "uint16", 1.6, 1.0),
        ("int32", "uint32", -3.0, 0.0),
        ("float32", "bfloat8_b", 1.0009765625, 1.0009765625),  # what is packed later stays exact until then
    ],
)
def test_a_typecast_is_told_where_its_input_lies_and_in_what(
    ttnn: Any, source: str, dtype: str, value: float, expected: float
) -> None:
    prepare, golden = operations.preparation_of("ttnn.typecast", ttnn.typecast), operations.golden_of(ttnn.typecast)
    assert prepare is not None and golden is not None
    _, named = prepare((SimpleNamespace(dtype=getattr(ttnn, source)), getattr(ttnn, dtype)), {})
    assert float(golden(torch.tensor([value]), getattr(ttnn, dtype), **named)) == expected


def test_activations_are_known_by_name_and_by_type(ttnn: Any) -> None:
    x = torch.tensor([-1.0, 2.0])
    for activation in ("relu", ttnn.UnaryOpType.RELU, ttnn.UnaryWithParam(ttnn.UnaryOpType.RELU)):
        assert operations.golden_of_activation(activation)(x).tolist() == [0.0, 2.0]


def test_below_a_wrapper_is_a_function_that_does_the_same(ttnn: Any, empty: Any, monkeypatch: Any) -> None:
    assert operations.function_of(ttnn.add) is not ttnn.add
    assert operations.function_of(ttnn.add)(empty(32, 64), empty(32, 64)).shape == (32, 64)
    assert operations.function_of(ttnn.CoreCoord) is ttnn.CoreCoord
    called = direct(ttnn)
    assert called.transformer.scaled_dot_product_attention is ttnn.transformer.scaled_dot_product_attention.function
    monkeypatch.setattr(ttnn.CONFIG, "enable_fast_runtime_mode", False)
    assert direct(ttnn) is ttnn


def test_a_mapper_tells_what_it_divides_and_over_how_many_chips(ttnn: Any) -> None:
    def placements(dims: list[int | None], *mesh_shape: int) -> tuple[list[int | None], list[int]]:
        kinds = [ttnn.PlacementReplicate() if dim is None else ttnn.PlacementShard(dim) for dim in dims]
        given = [kinds, ttnn.MeshShape(*mesh_shape)] if mesh_shape else [kinds]
        mapper = ttnn.create_mesh_mapper(ttnn.MeshShape(2, 4), ttnn.MeshMapperConfig(*given))
        return operations.placements_of(mapper, (2, 4))

    assert placements([0, -1]) == ([0, -1], [2, 4])
    assert placements([None, 3], 1, 8) == ([None, 3], [1, 8])
    assert placements([None, None])[0] == [None, None]
    assert operations.placements_of(object(), (2, 4)) == ([None], [1])  # a wrapper that replicates
