"""What a device dtype holds of torch values: as TTNN itself converts them on the host."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from rounded_once import packed_on_device

FLOATS = torch.tensor([[0.3, -0.7, 1.5, 2.5, -3.9, 100.6, 300.2, 65504.0, 1e-30, 0.0] * 7])
SOURCES = {
    "float32": FLOATS,
    "bfloat16": FLOATS.bfloat16(),
    "float16": FLOATS.half(),
    "int64": torch.tensor([0, 1, -1, 255, 256, 65536, 2**31 - 1]),
    "int32": torch.tensor([0, 1, -1, 255, 256, 65536, 2**31 - 1, -(2**31)], dtype=torch.int32),
    "int16": torch.tensor([0, -1, 300], dtype=torch.int16),
    "int8": torch.tensor([0, -1, 127], dtype=torch.int8),
    "uint8": torch.tensor([0, 1, 255], dtype=torch.uint8),
    "uint16": torch.tensor([0, 65535], dtype=torch.uint16),
    "uint32": torch.tensor([0, 2**32 - 1], dtype=torch.uint32),
    "bool": torch.tensor([True, False]),
}
DTYPES = (None, "bfloat16", "float32", "bfloat8_b", "bfloat4_b", "uint32", "int32", "uint16", "uint8")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", SOURCES)
def test_upload_and_download_give_what_ttnn_gives_on_the_host(
    ttnn: Any, emulated: Any, device: Any, source: str, dtype: str | None
) -> None:
    tensor, target = SOURCES[source], None if dtype is None else getattr(ttnn, dtype)
    layout = ttnn.TILE_LAYOUT if dtype in ("bfloat8_b", "bfloat4_b") else None
    expected = ttnn.from_torch(tensor, dtype=target, layout=layout).to_torch()
    found = emulated.to_torch(emulated.from_torch(tensor, dtype=target, layout=layout, device=device.handle))
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", ["bfloat8_b", "bfloat4_b"])
@pytest.mark.parametrize("shape", [(33, 70), (2, 3, 5, 7), (1,), (16, 16), ()])
def test_results_in_block_floats_round_as_the_packers_do(
    ttnn: Any, emulated: Any, upload: Callable[..., Any], dtype: str, shape: tuple[int, ...]
) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 100
    found = emulated.to_torch(emulated.typecast(upload(tensor, ttnn.float32), getattr(ttnn, dtype)))
    assert found.dtype == torch.float32
    expected = packed_on_device(tensor.reshape(shape or (1,)), dtype).reshape(shape)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def _hard_to_round(seed: int) -> torch.Tensor:
    """Ties, what lies just beside them, and neighbours of other exponents, one of which may be as small as can be."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int) -> torch.Tensor:
        return torch.randint(low, high, (64, 96), generator=generator)

    ties = (integers(-256, 256) + 0.5) / 128 * (1 + integers(-2, 3) * 2.0**-23)
    return ties * torch.exp2(-integers(0, 9)) * torch.exp2(integers(-30, 30)[:, :1])


@pytest.mark.parametrize("dtype", ["bfloat8_b", "bfloat4_b"])
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16])
def test_block_floats_are_bit_for_bit_what_ttnn_packs(
    ttnn: Any, upload: Callable[..., Any], dtype: str, source: torch.dtype
) -> None:
    target, extremes = getattr(ttnn, dtype), torch.zeros(32, 96)
    extremes[0, 3], extremes[1, 20], extremes[2, 40:50], extremes[3, 3] = 2.0**-110, 3.3e38, 2.0**-99, -(2.0**127)
    extremes[4, 0], extremes[4, 1] = 2.0**100, 2.0**-120
    for tensor in (*(_hard_to_round(seed) for seed in range(4)), torch.zeros(5, 5), extremes):
        tensor = tensor.to(source)
        expected = ttnn.from_torch(tensor, dtype=target, layout=ttnn.TILE_LAYOUT).to_torch()
        assert torch.equal(upload(tensor, target).value, expected)


@pytest.mark.parametrize("dtype", ["bfloat8_b", "bfloat4_b"])
@pytest.mark.parametrize("special", [torch.inf, -torch.inf, torch.nan, 1e-40])
def test_what_block_floats_can_not_hold_is_what_ttnn_makes_of_it(
    ttnn: Any, upload: Callable[..., Any], dtype: str, special: float
) -> None:
    tensor, target = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)), getattr(ttnn, dtype)
    tensor[3, 7] = special
    tensor[5, 16:32] = special
    expected = ttnn.from_torch(tensor, dtype=target, layout=ttnn.TILE_LAYOUT).to_torch()
    torch.testing.assert_close(upload(tensor, target).value, expected, rtol=0, atol=0, equal_nan=True)


def test_a_result_is_rounded_to_the_dtype_that_ttnn_reports(
    ttnn: Any, emulated: Any, upload: Callable[..., Any]
) -> None:
    third = emulated.divide(upload(torch.full((2, 2), 1.0)), 3.0)
    assert third.dtype == ttnn.bfloat16
    assert third.value.dtype == torch.float32
    assert third.value[0, 0].item() == torch.tensor(1 / 3).bfloat16().item()


def test_unsigned_integers_wrap_around(ttnn: Any, emulated: Any, upload: Callable[..., Any]) -> None:
    zero, one = (upload(torch.full((2, 2), number), ttnn.uint32) for number in (0, 1))
    assert emulated.subtract(zero, one).value[0, 0].item() == 2**32 - 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.complex128])
def test_dtypes_that_would_end_the_process_are_refused(emulated: Any, dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=str(dtype)):
        emulated.from_torch(torch.ones(2, 2, dtype=dtype))


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (1,), (1, 1, 1, 1, 2, 3)])
def test_unusual_shapes_survive_the_round_trip(
    upload: Callable[..., Any], emulated: Any, shape: tuple[int, ...]
) -> None:
    assert torch.equal(emulated.to_torch(upload(torch.ones(shape))), torch.ones(shape).bfloat16())


def test_expanded_and_non_contiguous_tensors_upload(upload: Callable[..., Any]) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(upload(base.T).value, base.T)
    assert torch.equal(upload(base[:1].expand(4, 3)).value, base[:1].expand(4, 3))


def test_large_tensors_are_allocated_with_the_spec_that_ttnn_gives_them(ttnn: Any, emulated: Any, device: Any) -> None:
    height_sharded = ttnn.create_sharded_memory_config(
        (256, 512), core_grid=ttnn.CoreGrid(y=1, x=8), strategy=ttnn.ShardStrategy.HEIGHT
    )
    tensor = torch.zeros(256, 512)
    for dtype in (ttnn.bfloat16, ttnn.float32, ttnn.bfloat8_b, ttnn.uint32):
        for layout in (None, ttnn.TILE_LAYOUT, ttnn.ROW_MAJOR_LAYOUT):
            for memory in (None, ttnn.DRAM_MEMORY_CONFIG, ttnn.L1_MEMORY_CONFIG, height_sharded):
                options = {"dtype": dtype, "layout": layout, "device": device.handle, "memory_config": memory}
                if dtype == ttnn.bfloat8_b and layout == ttnn.ROW_MAJOR_LAYOUT:
                    with pytest.raises(RuntimeError, match="Layout must be Layout::TILE"):
                        emulated.from_torch(tensor, **options)
                    continue
                assert emulated.from_torch(tensor, **options).spec == ttnn.from_torch(tensor, **options).spec
