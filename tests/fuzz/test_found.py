"""What the fuzzer found, as it printed it: each was wrong once."""

from __future__ import annotations

import pytest
from fuzzing import run
from graphs import Case

pytestmark = [pytest.mark.usefixtures("clean_dynamo"), pytest.mark.filterwarnings("ignore")]

FOUND = {
    "a constant returned twice": Case(
        inputs=("floats((2,), 'normal', 0, torch.float32)",),
        steps=("v1 = F.hardtanh(torch.arange(33) * 0.25)",),
        result="(v1, v0, v1)",
    ),
    "a sum of a number": Case(
        inputs=("floats((), 'normal', 7, torch.float32)",),
        steps=("v1 = torch.log2(v0.abs() + 0.5)", "v2 = v1.sum(0, keepdim=False)"),
        result="v2",
    ),
    "a scatter into a number": Case(
        inputs=("floats((), 'normal', 0, torch.float32)",),
        steps=("v1 = torch.relu(v0)", "v2 = v1.scatter_add(0, torch.zeros_like(v1, dtype=torch.int64), v1)"),
        result="v2",
    ),
    "an infinity rounded down": Case(
        inputs=("floats((2, 2), 'special', 0, torch.float32)",),
        steps=("v1 = torch.div(v0, 1, rounding_mode='floor')", "v2 = torch.div(v0, 1, rounding_mode='trunc')"),
        result="(v1, v2)",
    ),
    "a write to every second of one column": Case(
        inputs=("floats((1, 1), 'normal', 0, torch.float32)",),
        steps=("v0[..., ::2].add_(1)",),
        result="v0",
    ),
    "a write into windows that share memory": Case(
        inputs=("floats((6,), 'normal', 0, torch.float32).as_strided((2, 2, 2), (1, 2, 1))",),
        steps=("v1 = torch.select_scatter(v0, v0[0], 0, -1)",),
        result="v1",
    ),
}


@pytest.mark.parametrize("case", FOUND.values(), ids=FOUND)
def test_what_was_found_stays_right(case: Case) -> None:
    assert run(case).complaint == ""
