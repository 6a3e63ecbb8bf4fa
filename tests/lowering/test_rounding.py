"""Rounding, division to whole numbers and what is left over."""

import pytest
import torch
from compiled import calls, check, positive, random

from tt_dynamo.ir.graph import aten

INF = float("inf")
HALVES = torch.tensor([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.25, -0.75, 0.0, -0.0, 3.0, 100.5, INF, -INF, float("nan")]])


@pytest.mark.parametrize("name", ["ceil", "floor", "frac", "round", "trunc"])
def test_rounding_is_one_call(name):
    assert calls(check(lambda x: getattr(aten, name)(x), HALVES, roundings=0)) == [name]


@pytest.mark.parametrize("decimals", [0, 1, 2, -1])
def test_rounding_to_decimals(decimals):
    report = check(lambda x: torch.round(torch.relu(x), decimals=decimals), (positive(3, 33) * 100).bfloat16().float())
    assert calls(report) == ["relu", "round"]


DIVISIONS = {
    "down": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "towards zero": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "not at all": lambda x, y: aten.div.Tensor_mode(x, y, rounding_mode=None),
    "as //": lambda x, y: x // y,
    "left over, by its dividend's sign": torch.fmod,
    "left over, by its divisor's sign": torch.remainder,
}
EXACT = [name for name in DIVISIONS if name != "not at all"]


@pytest.mark.parametrize("name", DIVISIONS)
def test_a_division_rounded(name):
    check(DIVISIONS[name], random(3, 33, scale=8.0), random(33, scale=2.0))


@pytest.mark.parametrize("divisor", [3, -2.5, 0.75])
@pytest.mark.parametrize("name", EXACT)
def test_a_division_by_a_number_rounded(name, divisor):
    check(lambda x: DIVISIONS[name](x, divisor), random(3, 33, scale=8.0))


@pytest.mark.parametrize("name", EXACT)
def test_a_quotient_just_below_a_whole_number_is_not_rounded_up_first(name):
    # 764 / 255 = 2.996 is 3.0 in bfloat16.
    check(DIVISIONS[name], torch.tensor([[764.0, -764.0]]), torch.tensor([[255.0], [-255.0]]))


@pytest.mark.parametrize("name", ["down", "towards zero"])
def test_a_division_by_zero_is_infinite_or_not_a_number(name):
    check(DIVISIONS[name], torch.tensor([[1.0, -1.0, 0.0]]), torch.tensor([[0.0], [-0.0], [2.0]]))


@pytest.mark.parametrize("name", ["left over, by its dividend's sign", "left over, by its divisor's sign"])
def test_nothing_is_left_of_a_division_by_zero(name):
    check(DIVISIONS[name], torch.tensor([[1.0, -1.0, 0.0]]), torch.tensor([[0.0], [3.0]]))


def test_what_is_left_of_a_number():
    check(lambda x: torch.remainder(7.5, x), random(3, 33, scale=4.0))
