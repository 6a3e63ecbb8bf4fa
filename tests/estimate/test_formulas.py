"""Formulas against examples worked by hand, and what must hold of all of them."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tt_dynamo.estimate.calls import estimate
from tt_dynamo.estimate.chip import BOUNDS, Chip, Cost, chip_of
from tt_dynamo.estimate.operations import OPERATIONS
from tt_dynamo.estimate.tensor import Call, Tensor

EVERY_BOARD = pytest.mark.parametrize("board", ["n150", "n300", "p150"])


def grid(x: int, y: int) -> SimpleNamespace:
    return SimpleNamespace(x=x, y=y)


def precision(fidelity: str = "HiFi2", *, float32: bool = False) -> SimpleNamespace:
    return SimpleNamespace(math_fidelity=fidelity, fp32_dest_acc_en=float32, packer_l1_acc=True)


def linear(rows: int, k: int, n: int, *, place: str = "DRAM", weight: str = "bfloat16", **options: object) -> Call:
    x, out = (Tensor((rows, columns), memory=place) for columns in (k, n))
    given = {"core_grid": grid(8, 8), "compute_kernel_config": precision(), **options}
    return Call("ttnn.linear", (x, Tensor((k, n), weight)), (out,), given)


def plain(**constants: float) -> Chip:
    """A chip of 4 x 4 cores at 1 GHz whose constants are round numbers."""
    k = {**dict.fromkeys(vars(chip_of("n150").k), 0.0), "overlap": 64.0, "attention_in_a_corner": 1.0, **constants}
    for name in k:
        if name.endswith("_gbs") and not k[name]:
            k[name] = 1e12
    return Chip("wormhole_b0", (4, 4), 12, 1.0, 288.0, SimpleNamespace(**k))


def nanoseconds(call: Call, chip: Chip) -> float:
    return estimate(call, chip).seconds * 1e9


def test_a_tensor_counts_padded_tiles_and_their_bytes() -> None:
    x = Tensor((2, 33, 65), "bfloat8_b")
    assert (x.rows, x.columns, x.tiles, x.bytes) == (4, 3, 12, 12 * 1088)


def test_rows_take_the_bytes_of_their_elements_alone() -> None:
    x = Tensor((3, 10), "bfloat16", "ROW_MAJOR")
    assert (x.pages, x.bytes) == (3, 60)


def test_a_product_bound_by_compute_takes_its_tile_products_on_the_busiest_core() -> None:
    # 8 x 8 tiles of the result on 4 x 4 cores are 2 x 2 a core; each sums 16 products of 32 cycles in HiFi2.
    chip = plain(matrix_cycles=1.0, unpack_bytes_per_cycle=1e12, product_start_ns=100.0)
    found = estimate(linear(256, 512, 256, core_grid=grid(4, 4)), chip)
    assert found.seconds * 1e9 == pytest.approx(2 * 2 * 16 * 32 + 100, rel=1e-3)
    assert found.bound == "compute"


def test_partial_sums_cost_only_with_float32_accumulation() -> None:
    chip = plain(matrix_cycles=1.0, unpack_bytes_per_cycle=1e12, partial_sum_cycles=50.0)
    config = SimpleNamespace(kind="2d", in0_block_w=4, compute_with_storage_grid_size=grid(4, 4))
    once, again = (
        nanoseconds(linear(256, 512, 256, program_config=config, compute_kernel_config=precision(float32=wide)), chip)
        for wide in (False, True)
    )
    assert again - once == pytest.approx(4 * 3 * 50, rel=1e-3)  # 4 tiles a core, 4 blocks, so 3 sums put back


def test_a_product_from_dram_shards_is_bound_by_the_bytes_of_the_weights() -> None:
    chip = plain(matrix_cycles=1e-3, unpack_bytes_per_cycle=1e12, dram_sharded_gbs=100.0)
    x = Tensor((32, 1536), memory="L1", sharding="WIDTH_SHARDED", cores=12)
    weight = Tensor((1536, 1536), "bfloat8_b", sharding="WIDTH_SHARDED", cores=12)
    found = estimate(Call("ttnn.linear", (x, weight), (x,)), chip)
    assert found.seconds * 1e9 == pytest.approx(48 * 48 * 1088 / 100, rel=1e-3)
    assert (found.bound, found.family) == ("DRAM", "DRAM-sharded product")


def test_a_product_by_chosen_groups_reads_these_alone() -> None:
    chip = plain(matrix_cycles=1e-3, unpack_bytes_per_cycle=1e12, interleaved_gbs=100.0)
    weight, config = Tensor((64, 256, 512)), SimpleNamespace(kind="1d", in0_block_w=8)

    def multiply(groups: int) -> float:
        out = Tensor((groups, 1, 512))
        return nanoseconds(
            Call("ttnn.sparse_matmul", (Tensor((1, 256)), weight), (out,), {"program_config": config}), chip
        )

    assert [multiply(groups) for groups in (1, 3)] == pytest.approx([n * 256 * 512 * 2 / 100 for n in (1, 3)], rel=1e-3)


def test_an_interleaved_norm_of_one_row_of_tiles_runs_on_one_core() -> None:
    chip = plain(norm_cycles=1000.0, norm_start_cycles=10.0)
    x = Tensor((32, 1024))
    assert nanoseconds(Call("ttnn.rms_norm", (x,), (x,)), chip) == pytest.approx(32 * 1000 + 10, rel=1e-3)


def test_a_sharded_norm_shares_the_columns_among_its_cores() -> None:
    chip = plain(norm_cycles=1000.0)
    x = Tensor((32, 1024), memory="L1", sharding="WIDTH_SHARDED", cores=16)
    assert nanoseconds(Call("ttnn.rms_norm", (x,), (x,)), chip) == pytest.approx(2 * 1000, rel=1e-3)


def test_a_sharded_norm_moves_its_result_to_other_cores() -> None:
    chip = plain(norm_cycles=1000.0, shard_copy_cycles=100.0)
    x, few = (Tensor((32, 1024), memory="L1", sharding="WIDTH_SHARDED", cores=cores) for cores in (16, 4))
    assert nanoseconds(Call("ttnn.rms_norm", (x,), (few,)), chip) == pytest.approx(2 * 1000 + 2 * 100, rel=1e-3)


def test_a_causal_attention_does_half_of_what_a_full_one_does() -> None:
    chip = plain(matrix_cycles=1.0, unpack_bytes_per_cycle=1e12)
    x = Tensor((1, 16, 1024, 64))
    sizes = {"q_chunk_size": 128, "k_chunk_size": 128, "compute_with_storage_grid_size": grid(4, 4)}

    def attend(causal: bool) -> float:
        options = {"program_config": SimpleNamespace(**sizes), "is_causal": causal}
        return nanoseconds(Call("ttnn.transformer.scaled_dot_product_attention", (x, x, x), (x,), options), chip)

    # A head a core: 8 chunks of queries, each with 8 of keys; a pair is 4 x 4 x (2 + 2) products of 32 cycles.
    assert attend(False) == pytest.approx(8 * 8 * 64 * 32, rel=1e-3)
    assert attend(True) / attend(False) == pytest.approx(4.5 / 8, rel=1e-3)


def test_the_softmax_of_attention_takes_longer_with_every_phase() -> None:
    chip, x = plain(attention_softmax_cycles=100.0, unpack_bytes_per_cycle=1e12), Tensor((1, 16, 32, 64))

    def attend(fidelity: str) -> float:
        options = {"is_causal": False, "compute_kernel_config": precision(fidelity)}
        return nanoseconds(Call("ttnn.transformer.scaled_dot_product_attention", (x, x, x), (x,), options), chip)

    assert [attend(fidelity) for fidelity in ("LoFi", "HiFi2", "HiFi4")] == pytest.approx([100, 200, 400], rel=1e-3)


def test_causal_chunks_are_handed_out_in_pairs_of_equal_work() -> None:
    chip = plain(attention_softmax_cycles=1.0, unpack_bytes_per_cycle=1e12)

    def attend(chunk: int) -> float:
        sizes = {"q_chunk_size": chunk, "k_chunk_size": chunk, "compute_with_storage_grid_size": grid(4, 4)}
        options = {"program_config": SimpleNamespace(**sizes), "compute_kernel_config": precision("LoFi")}
        x = Tensor((1, 8, 1024, 64))
        return nanoseconds(Call("ttnn.transformer.scaled_dot_product_attention", (x, x, x), (x,), options), chip)

    # Tiles of scores of the busiest of 16 cores. 8 heads of 2 chunks are 8 pairs of 3, of 4 chunks 16 pairs of 5, of 32
    # chunks 8 pairs of 33 a core. 3 chunks of 352 are no pairs: a core has the last two of a head, which see 2 and 3.
    assert [attend(chunk) for chunk in (512, 256, 32)] == pytest.approx([256 * 3, 64 * 5, 8 * 33], rel=1e-3)
    assert attend(352) == pytest.approx(121 * 5, rel=1e-3)


def test_chunks_of_keys_cost_a_correction_of_the_results_each() -> None:
    chip, x = plain(attention_correction_cycles=10.0, unpack_bytes_per_cycle=1e12), Tensor((1, 16, 256, 64))

    def attend(keys: int) -> float:
        sizes = {"q_chunk_size": 256, "k_chunk_size": keys, "compute_with_storage_grid_size": grid(4, 4)}
        options = {"program_config": SimpleNamespace(**sizes), "is_causal": False}
        return nanoseconds(Call("ttnn.transformer.scaled_dot_product_attention", (x, x, x), (x,), options), chip)

    # 8 x 2 tiles of results a core, by 2 x 10 cycles in HiFi2.
    assert attend(32) - attend(256) == pytest.approx((8 - 1) * 16 * 20, rel=1e-3)


def test_a_split_into_three_writes_each_tile_once() -> None:
    chip = plain(stream_cycles=10.0, stream_operand_cycles=1.0)
    x, part = Tensor((1, 1, 512, 384)), Tensor((1, 4, 512, 32))
    # 16 rows of 12 tiles on 16 cores: 12 tiles a core, each read and written.
    split = Call("ttnn.experimental.nlp_create_qkv_heads", (x,), (part,) * 3)
    assert nanoseconds(split, chip) == pytest.approx(12 * (10 + 2), rel=1e-3)


def test_a_split_that_gathers_rows_of_shards_takes_as_long_as_one_of_interleaved_tiles() -> None:
    chip = plain(stream_cycles=10.0, stream_operand_cycles=1.0)
    part, shape = Tensor((1, 12, 512, 64), memory="L1"), (1, 1, 512, 2304)
    interleaved = Tensor(shape, memory="L1")
    shards = Tensor(shape, memory="L1", sharding="BLOCK_SHARDED", cores=16)
    split = [Call("ttnn.experimental.nlp_create_qkv_heads_vit", (x,), (part,) * 3) for x in (interleaved, shards)]
    assert nanoseconds(split[0], chip) == nanoseconds(split[1], chip) == pytest.approx(72 * (10 + 2), rel=1e-3)


def test_heads_of_a_step_are_moved_row_by_row_within_tiles_by_two_data_movers() -> None:
    chip = plain(page_cycles=2.0)
    users, row = Tensor((1, 8, 32, 128), memory="L1", cores=8), Tensor((1, 1, 8, 4096), memory="L1", cores=16)
    merge = Call("ttnn.experimental.nlp_concat_heads_decode", (users,), (row,))
    split = Call("ttnn.experimental.nlp_create_qkv_heads_decode", (row,), (users,) * 3)
    # 8 users' 32 heads of 4 tiles on 16 cores, and on one core for each user.
    assert nanoseconds(merge, chip) == pytest.approx(8 * 32 * 4 / 16, rel=1e-3)
    assert nanoseconds(split, chip) == pytest.approx(8 * 32 * 4 / 8, rel=1e-3)
    counts = {"num_heads": 16, "num_kv_heads": 8, "overlap_qk_coregrid": False}  # keys are a quarter, on other cores
    apart = Call(split.name, split.inputs, split.outputs, counts)
    assert nanoseconds(apart, chip) == pytest.approx(0.75 * 8 * 32 * 4 / 8, rel=1e-3)


def test_two_caches_are_written_in_the_time_of_one() -> None:
    chip = plain(binary_cycles=10.0, start_cycles=5.0)
    rows, cache = Tensor((1, 8, 8, 128), memory="L1", sharding="HEIGHT_SHARDED", cores=8), Tensor((8, 8, 64, 128))
    one = Call("ttnn.experimental.paged_update_cache", (cache, rows), (cache,))
    both = Call("ttnn.experimental.paged_fused_update_cache", (cache, rows) * 2, (cache,) * 2)
    assert nanoseconds(both, chip) == nanoseconds(one, chip) == pytest.approx(8 * 4 * 2 * 10 + 2 * 5, rel=1e-3)


def test_a_relu_of_the_result_costs_nothing_one_before_a_pass_of_the_vector_engine_and_a_silu_two() -> None:
    chip, x = plain(unary_cycles=10.0, binary_cycles=1.0), Tensor((1, 1, 512, 512))

    def add(*activations: str, name: str = "activations") -> float:
        return nanoseconds(Call("ttnn.add", (x, x), (x,), {name: activations}), chip)

    relu = "UnaryWithParam(op_type=UnaryOpType::RELU)"  # 16 x 16 tiles are 16 a core
    assert [add(), add(relu), add("silu")] == pytest.approx([16, 16, 16 * 21], rel=1e-3)
    assert add(relu, name="input_tensor_a_activations") == pytest.approx(16 * 11, rel=1e-3)
    assert add("UnaryWithParam(op_type=UnaryOpType::RELU_MAX, params=[6])") == pytest.approx(16 * 11, rel=1e-3)


def test_a_relu_of_a_sum_that_broadcasts_is_a_pass_of_the_vector_engine() -> None:
    chip = plain(unary_cycles=10.0, broadcast_cycles=3.0)
    x, row = Tensor((1, 1, 512, 512)), Tensor((1, 1, 32, 512))
    add = Call("ttnn.add", (x, row), (x,), {"activations": ["UnaryWithParam(op_type=UnaryOpType::RELU)"]})
    assert nanoseconds(add, chip) == pytest.approx(16 * 13, rel=1e-3)


def decode_attention(batch: int, cores: SimpleNamespace | None = None) -> Call:
    query, cache = Tensor((1, batch, 32, 128)), Tensor((batch, 8, 1024, 128), "bfloat8_b")
    options = {} if cores is None else {"program_config": SimpleNamespace(compute_with_storage_grid_size=cores)}
    return Call("ttnn.transformer.scaled_dot_product_attention_decode", (query, cache, cache), (query,), options)


def test_decode_attention_reads_the_cache_once() -> None:
    chip = plain(matrix_cycles=1e-6, unpack_bytes_per_cycle=1e12, attention_bank_gbs=10.0, attention_in_a_corner=0.5)
    cache = Tensor((8, 8, 1024, 128), "bfloat8_b")
    whole = 2 * cache.bytes / (10 * chip.banks)
    assert nanoseconds(decode_attention(8), chip) == pytest.approx(whole, rel=1e-3)
    assert nanoseconds(decode_attention(8, grid(2, 4)), chip) == pytest.approx(2 * whole, rel=1e-3)


@pytest.mark.parametrize(
    ("cores", "batch", "heads"),
    [((4, 4), 16, 8), ((8, 8), 32, 4), ((11, 10), 32, 4), ((13, 10), 32, 2), ((8, 8), 1, 1)],
)
def test_heads_of_keys_that_a_core_has_start_one_after_another(cores: tuple[int, int], batch: int, heads: int) -> None:
    free = {"matrix_cycles": 1e-6, "unpack_bytes_per_cycle": 1e12}
    chip = replace(plain(**free, attention_head_cycles=1000.0), grid=cores)
    assert nanoseconds(decode_attention(batch), chip) == pytest.approx(heads * 1000, rel=1e-3)


def test_a_collective_sends_what_the_other_chips_lack() -> None:
    chip = plain(ethernet_gbs=10.0)
    one, four = Tensor((32, 256)), Tensor((32, 1024))
    assert nanoseconds(Call("ttnn.all_gather", (one,), (four,)), chip) == pytest.approx(
        four.bytes * 0.75 / 10, rel=1e-3
    )


def call_of(operation: str, x: Tensor) -> Call:
    """A call of three such tensors; of two streams of them, or of heads side by side, where it takes those."""
    if "delta_rule" in operation:
        batch, heads, tokens, width = x.shape
        wide, gates = Tensor((batch, tokens, heads * width)), Tensor((batch, tokens, heads))
        return Call(operation, (wide, wide, wide, gates), (wide,))
    return Call(operation, (x,) * (6 if "joint" in operation else 3), (x,))


@EVERY_BOARD
def test_every_formula_gives_a_finite_cost_for_plain_tensors(board: str) -> None:
    chip, x = chip_of(board), Tensor((1, 8, 64, 64))
    for operation in OPERATIONS:
        found = estimate(call_of(operation, x), chip)
        assert math.isfinite(found.seconds) and found.seconds >= 0, operation
        assert found.bound in BOUNDS and 0 <= found.utilization <= 1, operation


@EVERY_BOARD
def test_four_times_the_rows_are_never_faster(board: str) -> None:
    chip, sizes = chip_of(board), [Tensor((1, 8, rows, 128)) for rows in (32, 128, 512, 2048)]
    for operation in OPERATIONS:
        times = [estimate(call_of(operation, x), chip).seconds for x in sizes]
        assert times == sorted(times), operation


@EVERY_BOARD
def test_narrower_weights_are_never_slower(board: str) -> None:
    chip = chip_of(board)
    for rows, k, n in ((32, 4096, 4096), (1024, 4096, 14336), (3072, 768, 3072), (8192, 256, 64)):
        times = [
            nanoseconds(linear(rows, k, n, weight=dtype, core_grid=grid(*chip.grid)), chip)
            for dtype in ("bfloat4_b", "bfloat8_b", "bfloat16")
        ]
        assert times == sorted(times)


@EVERY_BOARD
def test_higher_fidelity_is_never_faster(board: str) -> None:
    times = [
        nanoseconds(linear(1024, 1024, 1024, compute_kernel_config=precision(fidelity)), chip_of(board))
        for fidelity in ("LoFi", "HiFi2", "HiFi3", "HiFi4")
    ]
    assert times == sorted(times) and times[0] < times[-1]


def test_an_ideal_chip_is_never_slower() -> None:
    chip = chip_of("n150")
    found = estimate(linear(4096, 4096, 4096), chip)
    products, peak = 128**3, 16 * 2
    assert found.utilization == pytest.approx(products * peak / 64 / (found.seconds * 1e9), rel=1e-6)


def test_an_unknown_operation_is_costed_by_its_bytes() -> None:
    chip, x = chip_of("n150"), Tensor((1024, 1024))
    found = estimate(Call("ttnn.no_such_operation", (x,), (x,)), chip)
    assert found.bound == found.family == "unknown"
    assert found.seconds * 1e9 > 2 * x.bytes / chip.dram


def test_an_unknown_board_counts_as_an_n150() -> None:
    assert chip_of("no_such_board").grid == chip_of("n150").grid


def test_a_convolution_that_mixes_channels_is_a_product_and_others_gather_pixels() -> None:
    chip = plain(matrix_cycles=1.0, unpack_bytes_per_cycle=1e12, gather_pixels_cycles=100.0)
    x, out = (
        Tensor((1, 1, 512, size), "bfloat8_b", memory="L1", sharding="HEIGHT_SHARDED", cores=16) for size in (64, 96)
    )
    one = {"kernel_size": (1, 1), "stride": (1, 1), "dilation": (1, 1), "padding": (0, 0, 0, 0), "groups": 1}
    weight = Tensor((1, 1, 64, 96), "bfloat8_b")

    def convolution(**changed: object) -> float:
        return nanoseconds(Call("ttnn.conv2d", (x, weight), (out,), {**one, **changed}), chip)

    config = SimpleNamespace(kind="1d", in0_block_w=2, compute_with_storage_grid_size=SimpleNamespace(x=1, y=16))
    product = Call("ttnn.linear", (x, Tensor((64, 96), "bfloat8_b")), (out,), {"program_config": config})
    assert convolution() == pytest.approx(nanoseconds(product, chip), rel=1e-6)
    for other in ({"stride": (2, 2)}, {"groups": 2}, {"padding": (0, 0, 1, 1)}, {"kernel_size": (1, 3)}):
        assert convolution(**other) > convolution() + 100


def test_a_convolution_of_volumes_takes_as_long_as_the_busiest_core_multiplies() -> None:
    chip = plain(matrix_cycles=1.0, unpack_bytes_per_cycle=1e12, gather_pixels_cycles=0.0)
    x, out = Tensor((1, 4, 16, 16, 64), layout="ROW_MAJOR"), Tensor((1, 4, 16, 16, 96), layout="ROW_MAJOR")

    weight = Tensor((27 * 64, 96))

    def convolution(columns: int, rows: int) -> float:
        config = SimpleNamespace(C_in_block=64, C_out_block=columns, T_out_block=1, H_out_block=rows, W_out_block=8)
        return nanoseconds(Call("ttnn.experimental.conv3d", (x, weight), (out,), {"config": config}), chip)

    assert convolution(96, 4) < convolution(32, 1)  # a quarter of each tile's rows
    assert convolution(96, 4) < convolution(96, 16)  # 8 blocks for 64 cores


def test_a_convolution_that_shards_its_image_anew_makes_a_move_as_well() -> None:
    chip = plain(matrix_cycles=1.0, unpack_bytes_per_cycle=1e12, shard_copy_cycles=100.0)
    weight, out = Tensor((1, 1, 64, 96)), Tensor((1, 1, 512, 96), memory="L1", sharding="BLOCK_SHARDED", cores=8)

    def cost(sharding: str, **config: bool) -> Cost:
        x = Tensor((1, 1, 512, 64), memory="L1", sharding=sharding, cores=8)
        options = {"kernel_size": (3, 3), "groups": 1, "conv_config": SimpleNamespace(**config)}
        return estimate(Call("ttnn.conv2d", (x, weight), (out,), options), chip)

    plainly = cost("HEIGHT_SHARDED", reshard_if_not_optimal=False)
    assert cost("BLOCK_SHARDED", reshard_if_not_optimal=True) == plainly and plainly.launches == 1
    anew = cost("HEIGHT_SHARDED", reshard_if_not_optimal=True)
    assert (anew.seconds - plainly.seconds) * 1e9 == pytest.approx(16 * 2 / 8 * 100, rel=1e-3)
    assert anew.launches == 2 and anew.family == plainly.family


def test_the_width_of_block_shards_says_how_many_cores_share_the_columns() -> None:
    shards = {"memory": "L1", "sharding": "BLOCK_SHARDED", "cores": 16}
    assert Tensor((1, 1, 512, 384), **shards, shard_width=192).across(8) == 2
    assert Tensor((1, 1, 512, 384), **shards).across(8) == 8 and Tensor((1, 1, 512, 384)).across(8) == 1
    weight, x = Tensor((1, 1, 64, 384)), Tensor((1, 1, 512, 64), **shards)
    options = {"kernel_size": (3, 3), "groups": 1}
    chip = plain(matrix_cycles=1000.0, unpack_bytes_per_cycle=1e12)

    def seconds(width: int) -> float:
        out = Tensor((1, 1, 512, 384), **shards, shard_width=width)
        return estimate(Call("ttnn.conv2d", (x, weight), (out,), options), chip).seconds

    assert seconds(192) == pytest.approx(seconds(96), rel=0.01), "as many tiles on each of 16 cores"
    assert seconds(32) > 1.25 * seconds(96), "12 cores have all, and 4 cores none"


def test_shards_change_their_layout_where_they_lie() -> None:
    chip = plain(layout_cycles=10.0, padded_tile_cycles=1000.0)
    shards = {"memory": "L1", "sharding": "WIDTH_SHARDED", "cores": 4}
    tiles, rows = Tensor((16, 1, 49, 512), **shards), Tensor((16, 1, 49, 512), layout="ROW_MAJOR", **shards)
    assert nanoseconds(Call("ttnn.to_layout", (rows,), (tiles,)), chip) == pytest.approx(16 * 2 * 4 * 10, rel=1e-3)
