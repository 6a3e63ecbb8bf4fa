"""A gated product is one kernel where TTNN takes it so and the estimate says that it is faster; values are eager's."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import assert_close
from torch import nn

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo")
BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


class Gated(nn.Module):
    """x [rows, width] -> the same."""

    def __init__(self, width: int, inner: int, bias: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.up = nn.Linear(width, inner, bias), nn.Linear(width, inner, bias)
        self.down = nn.Linear(inner, width, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Packed(Gated):
    """Gate and up of one product."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.cat([self.gate.weight, self.up.weight])
        gate, up = F.linear(x, weight).chunk(2, -1)
        return self.down(up * F.silu(gate))


def run(model: nn.Module, x: torch.Tensor, **options: Any) -> tuple[torch.Tensor, tt_dynamo.GraphReport]:
    with tt_dynamo.record() as reports, torch.no_grad():
        result = torch.compile(model, backend="ttnn", options={"device": BOARD, **options})(x)
    (report,) = reports
    assert not report.fallbacks and not report.decomposed
    return result, report


@pytest.mark.parametrize("model", [Gated(64, 96), Gated(64, 96, bias=True), Packed(64, 96)], ids=["", "bias", "chunk"])
@pytest.mark.parametrize("rows", [5, 70])
def test_a_small_gated_product_is_one_launch_with_eagers_values(model: Gated, rows: int) -> None:
    x = torch.randn(2, rows, 64)
    result, report = run(model, x)
    assert report.launches["ttnn.experimental.minimal_matmul"] == report.launches["ttnn.linear"] == 1
    assert_close(result, model(x))


def test_weights_of_the_option_s_dtype_are_read() -> None:
    model, x = Gated(64, 96), torch.randn(64, 64)
    result, report = run(model, x, weight_dtype="bfloat8_b")
    assert report.launches["ttnn.experimental.minimal_matmul"] == 1
    assert_close(result, model(x))


@pytest.mark.parametrize(
    ("model", "rows", "options"),
    [
        (Gated(64, 80), 64, {}),  # a tile would hold gates and ups
        (Gated(1024, 4096), 32, {}),  # the estimate says it is slower
        (Gated(64, 96), 64, {"optimize": "off"}),
        (Gated(64, 96), 64, {"configs": {"ttnn.linear": {"fp32_accumulation": False}}}),
    ],
    ids=["80 columns", "large weights of few rows", "nothing is compared", "a config says how"],
)
def test_others_are_three_launches(model: Gated, rows: int, options: dict[str, Any]) -> None:
    _, report = run(model, torch.randn(rows, model.gate.in_features), dry_run=True, **options)
    assert "ttnn.experimental.minimal_matmul" not in report.launches
    assert report.launches["ttnn.linear"] == 3


def test_a_gate_that_is_read_again_stays() -> None:
    class Returned(Gated):
        def forward(self, x: torch.Tensor) -> Any:
            gate = F.silu(self.gate(x))
            return gate, gate * self.up(x)

    _, report = run(Returned(64, 96), torch.randn(64, 64), dry_run=True)
    assert report.launches["ttnn.linear"] == 2
