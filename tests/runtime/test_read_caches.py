"""Caches that a graph only reads, as cross-attention does: they stay on the device, whoever wrote them last."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import assert_close

import tt_dynamo
from tt_dynamo.runtime.caches import DeviceTensor

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def fill(keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    rows = torch.arange(keys.shape[2])
    return tuple(torch.zeros(1, 2, 64, 32).index_copy(2, rows, x) for x in (keys, values))


def read(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, keys, values)


def write(cache: torch.Tensor, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    cache.index_copy_(2, position, row)
    return row * 2


@pytest.fixture
def caches() -> Any:
    """What a program keeps on the device, and the same as eager torch has it."""
    torch.manual_seed(0)
    keys, values = torch.randn(1, 2, 32, 32), torch.randn(1, 2, 32, 32)
    with torch.no_grad():
        held = torch.compile(fill, backend="ttnn")(keys, values)
    assert all(type(cache) is DeviceTensor for cache in held)
    return held, fill(keys, values)


@torch.no_grad()
def test_a_cache_that_is_only_read_does_not_cross(caches: Any) -> None:
    held, eager = caches
    query = torch.randn(1, 2, 32, 32)
    with tt_dynamo.record() as reports:
        reader = torch.compile(read, backend="ttnn")
        outputs = [reader(query, *held) for _ in range(2)]
    (report,) = reports
    assert [transfer.direction for transfer in report.transfers] == ["to_device", "to_host"]
    assert report.cache_bytes == 2 * 2 * 64 * 32 * 2
    for output in outputs:
        assert_close(output, read(query, *eager))


@torch.no_grad()
def test_what_torch_writes_into_it_is_read(caches: Any) -> None:
    held, eager = caches
    query = torch.randn(1, 2, 32, 32)
    reader = torch.compile(read, backend="ttnn")
    reader(query, *held)
    for cache in (held[1], eager[1]):
        cache[:, :, :16] = 3.0
    assert_close(reader(query, *held), read(query, *eager))


@torch.no_grad()
@pytest.mark.parametrize("through_a_view", [False, True])
def test_what_another_program_writes_into_it_is_read(caches: Any, through_a_view: bool) -> None:
    held, eager = caches
    query, row = torch.randn(1, 2, 32, 32), torch.full((1, 2, 1, 32), 3.0)
    reader, writer = (torch.compile(function, backend="ttnn") for function in (read, write))

    def seen(caches: Any) -> list[torch.Tensor]:
        return [cache[:, :, :48] for cache in caches] if through_a_view else list(caches)

    views = seen(held)
    reader(query, *views)
    for position in (40, 41):
        for caches in (held, eager):
            (writer if caches is held else write)(caches[1], row, torch.tensor([position]))
        assert_close(reader(query, *views), read(query, *seen(eager)))


@torch.no_grad()
def test_what_a_program_writes_through_a_view_is_read_in_the_whole(caches: Any) -> None:
    held, eager = caches
    query, row = torch.randn(1, 2, 32, 32), torch.full((2, 1, 32), 3.0)

    def write(cache: torch.Tensor, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        cache.index_copy_(1, position, row)
        return row * 2

    reader, writer = (torch.compile(function, backend="ttnn") for function in (read, write))
    for _ in range(2):
        reader(query, *held)
        for caches in (held, eager):
            (writer if caches is held else write)(caches[1][0], row, torch.tensor([40]))
        assert_close(reader(query, *held), read(query, *eager))
        assert_close(held[1].clone(), eager[1])
        row = row * 2


@torch.no_grad()
def test_reading_it_on_the_host_gives_its_contents(caches: Any) -> None:
    held, eager = caches
    torch.compile(read, backend="ttnn")(torch.randn(1, 2, 32, 32), *held)
    for ours, theirs in zip(held, eager, strict=True):
        assert_close(ours.clone(), theirs)
