"""Running sums and products, and products along a dimension."""

import pytest
import torch
from compiled import calls, check, compiled, falls_back, positive, random

from tt_dynamo.lowering import reduction

SHAPES = [(1,), (33,), (5, 33), (2, 3, 33), (2, 3, 4, 5), (2, 1, 3, 2, 5), (2, 1, 2, 3, 2, 5)]


def near_one(*shape):
    return (random(*shape, scale=0.125) + 1).bfloat16().float()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_scans_run_along_any_dimension(name, shape):
    x = near_one(*shape)
    report = check(lambda x: tuple(getattr(x, name)(dim) for dim in {0, len(shape) // 2, -1}), x)
    assert set(calls(report)) == {name, "typecast"}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_run_along_any_dimension(shape):
    x = near_one(*shape)
    check(lambda x: tuple(x.prod(dim, keepdim) for dim in {0, len(shape) // 2, -1} for keepdim in (False, True)), x)


def test_a_running_sum_of_many_elements_is_rounded_once():
    check(lambda x: (x.cumsum(0), x.cumsum(1)), positive(3, 3000))


def test_a_product_of_many_factors_is_rounded_once():
    check(lambda x: (x.prod(1), x.prod()), (random(3, 300, scale=1 / 64) + 1).bfloat16().float())


def test_a_product_of_all_elements():
    check(lambda x: x.prod(), near_one(2, 3, 5))


def test_a_single_number_is_its_own_scan_and_product():
    check(lambda x: (x.cumsum(0), x.cumprod(-1), x.prod(), x.prod(0)), torch.tensor(1.5))


def test_a_product_of_negative_numbers_and_zeros_sees_no_padding():
    x = -positive(3, 5)
    x[1, 2] = 0
    check(lambda x: (x.prod(0), x.prod(1)), x)


def test_running_counts_are_exact():
    def running(x):
        positive = torch.relu(x) > 0
        return positive.cumsum(1) * x

    report = check(running, random(2, 900, 4).abs(), roundings=2)
    assert "cumsum" in calls(report)


def test_more_than_float32_can_count_is_counted_on_the_host(monkeypatch):
    monkeypatch.setattr(reduction, "COUNTABLE", 32)
    fallback = falls_back(lambda x: (torch.relu(x) > 0).cumsum(1) * x, random(8, 33, 4))
    assert "cannot count to 33" in fallback.reason


def test_a_product_of_booleans_says_whether_all_hold():
    x = random(8, 40, 33)
    x[:, :3] = 1
    report = check(lambda x: ((torch.relu(x) > -1).prod(-1), (torch.relu(x) > 0).prod(-1, keepdim=True)), x)
    assert calls(report).count("min") == 2


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("given", [None, torch.int32, torch.int64])
def test_scans_of_integers_are_exact(dtype, given):
    x = torch.tensor([(1 << 24) + 1, -(1 << 25) - 3, 3, -1], dtype=dtype)

    def scans(x):
        return x.cumsum(0, dtype=given), x[2:].cumprod(0, dtype=given), x[2:].prod(0, dtype=given)

    outputs, _ = compiled(scans, x)
    expected = scans(x)
    assert all(torch.equal(output, value) for output, value in zip(outputs, expected, strict=True))
    assert [output.dtype for output in outputs] == [value.dtype for value in expected]
