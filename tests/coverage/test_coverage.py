"""The table of core operations: complete, up to date, and as full as the project promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from core_coverage import core_operations, table
from core_samples import SAMPLES
from fresh_process import BOARD

import tt_dynamo
from tt_dynamo.lowering import registered
from tt_dynamo.lowering.on_host import IMPOSSIBLE

CHECKED_IN = Path(__file__).parents[2] / "lowering" / "coverage.md"


def test_every_core_operation_has_a_sample() -> None:
    assert sorted(SAMPLES) == sorted(core_operations())


def test_what_ttnn_cannot_express_has_no_lowering() -> None:
    assert not IMPOSSIBLE.keys() & registered().keys()


@pytest.mark.skipif(BOARD != "n150", reason="the table is of the N150; run with TT_DYNAMO_TEST_BOARD=n150")
def test_the_table_is_up_to_date() -> None:
    found, expected = table().splitlines(), CHECKED_IN.read_text().splitlines()
    stale = [line for line in found if line not in expected]
    assert found == expected, "run: python tests/coverage/core_coverage.py > lowering/coverage.md\n" + "\n".join(stale)


def test_95_of_100_core_operations_that_ttnn_can_express_are_lowered() -> None:
    expressible, lowered = re.search(r"TTNN has a way for (\d+); (\d+) of them", CHECKED_IN.read_text()).groups()
    assert int(expressible) == sum(target not in IMPOSSIBLE for target in core_operations().values())
    assert int(lowered) >= 0.95 * int(expressible)


def test_the_logarithm_of_a_probability_near_1_is_taken_on_the_host() -> None:
    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.binary_cross_entropy(x, y)

    x, y = torch.tensor([0.999, 0.5]), torch.tensor([0.0, 1.0])
    with tt_dynamo.record() as reports:
        ours = torch.compile(loss, backend="ttnn", options={"device": BOARD})(x, y)
    assert "binary_cross_entropy_with_logits" in reports[0].fallbacks[0].reason
    torch.testing.assert_close(ours, loss(x, y))
