"""Launches are counted whatever a program computes on the host, where many operations raise on zeros."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comparison import check
from fresh_process import BOARD

import tt_dynamo
from tt_dynamo.compiler.measure import peak_of_a_core

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

EYE = torch.eye(32)

ON_THE_HOST = {
    "an integer division": lambda x, n: n // (n + 1) + torch.tensor([7, 8]) // n,
    "a remainder": lambda x, n: torch.tensor([7, 8]) % n,
    "an index behind the end": lambda x, n: torch.tensor([5, 6, 7])[n - 1],
    "a lookup before the start": lambda x, n: x[n - 2],
    "a gather": lambda x, n: x.gather(0, (n - 2)[:, None]),
    "the inverse of a matrix": lambda x, n: torch.linalg.inv(x.double()),
    "a factor of a matrix": lambda x, n: torch.linalg.cholesky(x @ x.mT),
    "a choice by weights": lambda x, n: torch.multinomial(torch.abs(x).double(), 1) * 0,
    "an assertion": lambda x, n: torch._assert_async((n > 0).all()),
    "several results": lambda x, n: torch.linalg.svd(torch.linalg.inv(x.double()))[1],
    "what goes up again": lambda x, n: torch.relu(torch.linalg.inv(x.double()).float() * 2),
    "shapes of its own": lambda x, n: torch.tensor([7, 8]).repeat_interleave(n, output_size=5),
}


@pytest.mark.parametrize("name", ON_THE_HOST)
def test_launches_are_counted(name, warnings_logged):
    def model(x, n):
        return torch.relu(x @ x) * 2, ON_THE_HOST[name](x, n)

    torch._dynamo.reset()
    given = EYE + 1, torch.tensor([2, 3])
    with torch.no_grad(), tt_dynamo.record() as reports:
        outputs = torch.compile(model, backend="ttnn", options={"device": BOARD})(*given)
    torch.testing.assert_close(outputs, model(*given), rtol=0.02, atol=0.02)
    assert reports[0].device_programs >= 2 and reports[0].peak_dram_bytes
    assert sum(operation.programs for operation in reports[0].operations) == reports[0].device_programs
    assert not warnings_logged()


def test_the_peak_of_l1_is_that_of_one_core() -> None:
    def buffer(sign: str, size: int, cores: int = 64) -> dict[str, Any]:
        params = {"type": "L1", "size": size * cores, "max_size_per_bank": size}
        return {"node_type": f"buffer_{sign}allocate", "params": params}

    def circular(size: int, cores: str, inside: str = "0") -> dict[str, Any]:
        params = {"size": size, "core_range_set": cores, "globally_allocated": inside}
        return {"node_type": "circular_buffer_allocate", "params": params}

    kernel_ends = {"node_type": "circular_buffer_deallocate_all", "params": {}}
    events = [
        buffer("", 1000),
        circular(200, "{[0-0 - 7-7]}"),
        circular(30, "{[0-0 - 3-7], [6-0 - 6-0]}"),
        circular(4, "{[4-0 - 5-7]}"),  # other cores
        circular(500, "{[0-0 - 7-7]}", inside="1"),
    ]
    assert peak_of_a_core(events) == 1000 + 200 + 30
    assert peak_of_a_core([*events, kernel_ends, buffer("de", 1000), buffer("", 1100)]) == 1230
    assert peak_of_a_core([*events, kernel_ends, buffer("", 300), buffer("de", 1000)]) == 1300
    attention = torch.nn.functional.scaled_dot_product_attention
    (report,) = check(lambda x: attention(x, x, x), lambda: (torch.randn(1, 2, 128, 64),))
    assert 4096 <= report.peak_l1_bytes <= 1_500_000, "two tiles at least, and no more than a core has"


def test_launches_are_counted_beside_a_division_of_integers_which_zeros_would_fail() -> None:
    def model(x: torch.Tensor, n: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.relu(x @ x) * 2, n // d, n.cumsum(0)

    (report,) = check(model, lambda: (torch.randn(64, 64), torch.tensor([7, 8]), torch.tensor([2, 3])))
    assert report.device_programs > 0
    assert len(report.operations) == report.calls


def test_launches_are_counted_beside_several_results_of_the_host() -> None:
    def model(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values, places = x.double().sort(0)
        return torch.relu(x @ x), values, places

    (report,) = check(model, lambda: (torch.randn(32, 32),))
    assert report.device_programs > 0
