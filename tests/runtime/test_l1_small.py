"""The region that TTNN's cache of programs fills with the tables of convolutions: emptied, and asked again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from comparison import assert_same

import tt_dynamo
from tt_dynamo.devices import Device
from tt_dynamo.runtime.traces.traces import Traces

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

LEFT = 768  # bytes of a core, for the tables of about three models


@pytest.fixture(autouse=True)
def little_room(ttnn: Any, board_device: Device) -> Iterator[None]:
    """Most of L1_SMALL is held by something else."""

    def free() -> int:
        return int(ttnn.get_memory_view(board_device.handle, ttnn.BufferType.L1_SMALL).total_bytes_free_per_bank)

    board_device.resource(Traces).clear_program_cache(board_device.handle)
    grid = board_device.handle.compute_with_storage_grid_size()
    cores = ttnn.CoreRangeSet({ttnn.CoreRange(ttnn.CoreCoord(0, 0), ttnn.CoreCoord(grid.x - 1, grid.y - 1))})
    shards = ttnn.ShardSpec(cores, [1, (free() - LEFT) // 2], ttnn.ShardOrientation.ROW_MAJOR)
    memory = ttnn.MemoryConfig(ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1_SMALL, shards)
    shape = ttnn.Shape([grid.x * grid.y, (free() - LEFT) // 2])
    given = shape, ttnn.bfloat16, ttnn.ROW_MAJOR_LAYOUT, board_device.handle, memory
    held = ttnn.allocate_tensor_on_device(*given)
    assert free() == LEFT
    yield
    ttnn.deallocate(held)


def convolution(size: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """A model whose tables no other size has, and an image for it."""
    layers = torch.nn.Conv2d(16, 32, 3, padding=1), torch.nn.MaxPool2d(2), torch.nn.Conv2d(32, 16, 3, stride=2)
    return torch.nn.Sequential(*layers).eval(), torch.randn(1, 16, size, size)


def strict(model: torch.nn.Module, **options: Any) -> Callable[..., Any]:
    """A compiled model that raises where anything falls back."""
    return torch.compile(model, backend="ttnn", dynamic=False, options={"fallback": "error", **options})


@torch.no_grad()
def test_convolutions_of_other_programs_leave_room(board_device: Device) -> None:
    cleared = board_device.resource(Traces).cleared
    with tt_dynamo.record() as reports:
        living = [convolution(size) for size in range(9, 15)]
        compiled = [strict(model) for model, _ in living]
        for _ in range(2):  # in turn, so that what was compiled first is no longer in the cache
            for call, (model, image) in zip(compiled, living, strict=True):
                assert_same(call(image), model(image))
    assert len(reports) == len(living) and board_device.resource(Traces).cleared > cleared + 2
    assert not any(report.fallbacks for report in reports) and all(report.launches for report in reports)


@torch.no_grad()
def test_a_model_that_alone_needs_more_runs_on_the_device(caplog: pytest.LogCaptureFixture) -> None:
    models, images = zip(*(convolution(size) for size in range(9, 15)), strict=True)

    def all_of_them(*images: torch.Tensor) -> list[torch.Tensor]:
        return [model(image) for model, image in zip(models, images, strict=True)]

    with tt_dynamo.record() as reports:
        results = torch.compile(all_of_them, backend="ttnn")(*images)
    for result, expected in zip(results, all_of_them(*images), strict=True):
        assert_same(result, expected)
    assert not reports[0].fallbacks and "the second attempt went through" in caplog.text


@torch.no_grad()
def test_traces_are_captured_anew_where_the_cache_was_emptied(board_device: Device) -> None:
    traces = board_device.resource(Traces)
    first, image = convolution(9)
    call = strict(first, trace=True)
    with tt_dynamo.record() as reports:
        for _ in range(3):
            assert_same(call(image), first(image))
        cleared = traces.cleared
        assert traces.captured and reports[0].trace == "captured"
        for size in range(10, 15):
            other, input = convolution(size)
            strict(other)(input)
        assert traces.cleared > cleared and not traces.captured
        for _ in range(3):
            assert_same(call(image), first(image))
        assert traces.captured and reports[0].trace == "captured"
