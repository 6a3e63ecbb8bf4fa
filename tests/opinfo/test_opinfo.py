"""A fixed sample of `make opinfo`: a float32 sample of each core operation, and one of every 24th other case."""

from __future__ import annotations

from typing import Any

import judge
import pytest
import torch
from samples import DTYPES, all_cases, operators
from verdict import verdict
from workers import run_all

EVERY = 24


def is_core(name: str) -> bool:
    """Whether an operator of the database stands for a core ATen operation."""
    packet = getattr(torch.ops.aten, operators()[name].aten_name or "", None)
    return packet is not None and any(torch.Tag.core in getattr(packet, o).tags for o in packet.overloads())


@pytest.fixture(scope="module")
def outcomes() -> list[dict[str, Any]]:
    caps = {(case.operator, case.dtype): 1 for case in all_cases()[::EVERY]}
    caps |= {
        (case.operator, "float32"): 1 for case in all_cases() if case.dtype == "float32" and is_core(case.operator)
    }
    # One process, beside those of pytest-xdist: each more takes a quarter of a minute to start.
    runs = list(run_all([(*case, cap) for case, cap in caps.items()], processes=1))
    assert len(runs) > 200
    return runs


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_operation_gives_eagers_answer(outcomes, dtype):
    chosen = [outcome for outcome in outcomes if outcome["dtype"] == dtype]
    assert len({outcome["operator"] for outcome in chosen}) >= 10
    assert verdict(chosen) == []


def test_core_operations_that_ttnn_can_express_run_on_the_device(outcomes):
    core = [o for o in outcomes if o["dtype"] == "float32" and o["core"] and o["status"] != "eager"]
    core = [o for o in core if o["expressible"]]
    assert sum(o["status"] == "device" for o in core) >= 0.9 * len(core)


@pytest.mark.parametrize("wrong", [1.05, -1.0, float("nan"), float("inf")])
def test_the_judge_sees_one_wrong_element(wrong):
    right = torch.linspace(1, 2, 100)
    ours = right.clone()
    ours[17] *= wrong
    assert judge.complaint([right.bfloat16().float()], [right], [right], [right.bfloat16().float()]) == ""
    assert judge.complaint([ours], [right], [right], [right.bfloat16().float()])


def test_the_judge_sees_one_wrong_integer():
    right = torch.arange(1 << 24, (1 << 24) + 10)
    ours = right.clone()
    ours[3] += 1
    assert judge.complaint([right.clone()], [right], [right], [right]) == ""
    assert judge.complaint([ours], [right], [right], [right])


def test_the_judge_sees_a_wrong_shape_dtype_or_number_of_results():
    right = torch.ones(2, 3)
    assert judge.complaint([right.T], [right], [right], [right])
    assert judge.complaint([right.bfloat16()], [right], [right], [right])
    assert judge.complaint([right, right], [right], [right], [right])
    assert judge.complaint([2], [3], [3], [3])
