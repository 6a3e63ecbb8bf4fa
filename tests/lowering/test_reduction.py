"""Reductions."""

import pytest
import torch
import torch.nn.functional as F
from compiled import calls, check, compiled, falls_back, positive, random

from tt_dynamo.lowering import reduction

DIMS = [(-1, False), (-1, True), (0, False), (1, True), ((0, 1), False), ((1, 2), True), ((0, 1, 2), False)]
SHAPES = [(1,), (33,), (64, 32), (2, 3, 33), (2, 2, 2, 5), (2, 1, 3, 2, 33), (2, 1, 3, 2, 2, 5)]
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def x():
    return random(2, 40, 33)


@pytest.mark.parametrize(("dim", "keepdim"), DIMS, ids=str)
@pytest.mark.parametrize(("name", "call"), [("mean", "mean"), ("sum", "sum"), ("amax", "max"), ("amin", "min")])
def test_any_dimensions_are_reduced_by_one_call(name, call, dim, keepdim):
    report = check(lambda x: getattr(x, name)(dim, keepdim=keepdim), positive(2, 3, 33))
    assert calls(report) == [call]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_of_any_shape_are_reduced(shape):
    check(lambda x: (x.sum(-1), x.mean(0), x.amax(len(shape) // 2, keepdim=True)), positive(*shape))


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "amax", "prod"])
def test_all_elements_are_reduced(name):
    check(lambda x: getattr(x, name)(), (positive(2, 3, 5) / 2 + 0.5).bfloat16().float(), roundings=2)


def test_an_empty_list_of_dimensions_means_all(x):
    check(lambda x: (x.abs().sum([]), x.abs().mean([]), x.amax(()), x.norm(dim=[])), x, roundings=3)


def test_a_single_number_is_its_own_sum():
    def reduced(x):
        return x.sum(), x.sum(-1), x.mean(), x.amax(0), x.norm(), x.logsumexp(0), x.std(unbiased=False), x.var(0)

    check(reduced, torch.tensor(1.5), roundings=2)


def test_operands_need_not_be_contiguous():
    check(lambda x: (x.t()[::2].sum(0), x.t().mean(-1)), positive(33, 6))


def test_a_mean_over_many_elements_accumulates_in_float32():
    check(lambda x: (x.mean(), x.mean(-1)), positive(4, 40000))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_float_dtype_is_that_of_the_result(dtype):
    x = positive(3, 33).bfloat16()
    outputs, report = compiled(lambda x: (x.sum(1, dtype=dtype), x.mean(dtype=dtype)), x)
    assert not report.fallbacks and [y.dtype for y in outputs] == [dtype, dtype]
    torch.testing.assert_close(outputs[0].float(), x.float().sum(1), rtol=2**-7, atol=0)


def test_a_sum_in_float64_stays_on_the_host():
    outputs, report = compiled(lambda x: torch.relu(x).sum(1, dtype=torch.float64), positive(3, 33))
    torch.testing.assert_close(outputs, positive(3, 33).double().sum(1), rtol=0, atol=0)
    assert all("float64" in fallback.reason for fallback in report.fallbacks) and report.fallbacks


# --- booleans and integers ------------------------------------------------------------------------------------------


def test_booleans_are_counted_exactly(x):
    def counts(x):
        positive = torch.relu(x) > 0
        return positive.sum(), positive.sum(1), positive.sum((0, -1), keepdim=True), x.count_nonzero()

    report = check(counts, random(2, 70, 129))
    assert {"typecast", "sum"} <= set(calls(report))


def test_counts_of_all_dtypes_are_exact():
    def counts(x):
        y = torch.relu(x)
        return y.count_nonzero(), y.count_nonzero(1), (y > 0.5).count_nonzero((0, 1))

    check(counts, random(2, 70, 129))


def test_more_booleans_than_float32_can_count_are_counted_on_the_host(monkeypatch, x):
    monkeypatch.setattr(reduction, "COUNTABLE", x.numel() - 1)
    assert "cannot count to 2640" in falls_back(lambda x: (torch.relu(x) > 0).sum(), x).reason


def test_booleans_are_summed_as_the_floats_they_become(x):
    check(lambda x: (x > 0).sum(1, dtype=torch.float32), x)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_sums_and_extremes_of_integers_are_exact(dtype):
    x = torch.tensor([[1 << 24, (1 << 24) + 1, -(1 << 24) - 3], [-7, (1 << 30) + 1, -((1 << 30) + 3)]], dtype=dtype)

    def reduced(x):
        return x.sum(), x.sum(1), x.sum(0, dtype=torch.int32), x.amax(1), x.amin(), x.prod(1), *x.max(0), x.argmax(1)

    outputs, _ = compiled(reduced, x)
    torch.testing.assert_close(outputs, reduced(x), rtol=0, atol=0)


def test_floats_summed_as_integers_are_truncated_first():
    x = torch.tensor([[1.5, 1.5, -1.5, 300.5]])
    outputs, _ = compiled(lambda x: torch.relu(x).sum(1, dtype=torch.int64), x)
    assert outputs.tolist() == [302] and outputs.dtype == torch.int64


@pytest.mark.parametrize("name", ["any", "all"])
@pytest.mark.parametrize("arguments", [(), (0,), (-1, True), ((0, 2),)], ids=str)
def test_logic_over_booleans_and_numbers(name, arguments):
    x = torch.relu(random(8, 40, 3) - 1).repeat(1, 1, 30)

    def logic(x):
        y = torch.relu(x)
        return getattr(y > 0.25, name)(*arguments), getattr(y, name)(*arguments)

    report = check(logic, x)
    assert calls(report).count("max" if name == "any" else "min") == 2


def test_logic_over_no_dimension_says_of_each_element_whether_it_holds(x):
    check(lambda x: (torch.any(torch.relu(x) > 0, []), torch.all(torch.relu(x) > 0, ())), x)


def test_a_nan_is_not_zero():
    x = torch.tensor([[NAN, 0.0], [0.0, 0.0]]).repeat(20, 40)
    check(lambda x: ((x @ torch.eye(80)).any(1), (x @ torch.eye(80)).count_nonzero()), x)


# --- extremes -------------------------------------------------------------------------------------------------------


def test_extremes_of_negative_numbers_see_no_padding():
    check(lambda x: (x.amax(0), x.amax(1), x.amax()), -positive(3, 5), roundings=0)
    check(lambda x: (x.amin(0), x.amin(1), x.amin()), positive(3, 5), roundings=0)


def test_both_extremes(x):
    check(lambda x: (*torch.aminmax(x), *torch.aminmax(x, dim=1, keepdim=True)), x, roundings=0)


def test_extremes_of_infinities_and_nan_are_those_of_eager_torch():
    x = torch.tensor([[1.0, INF, -INF], [NAN, 1.0, 2.0], [-INF, -INF, -INF]])
    check(lambda x: (x.amax(1), x.amin(1), x.sum(1)), x)


# --- spread ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [None, 1, -1, (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("name", ["var", "std"])
def test_a_variance_is_one_call(name, correction, dim, x):
    report = check(lambda x: getattr(torch, name)(x, dim, correction=correction, keepdim=True), x)
    assert calls(report) == [name]


@pytest.mark.parametrize("name", ["var", "std"])
def test_other_corrections_are_a_factor(name, x):
    report = check(lambda x: getattr(torch, name)(x, 1, correction=3), x, roundings=2)
    assert calls(report) == [name, "multiply"]


def test_a_variance_around_a_large_mean_does_not_cancel():
    check(lambda x: (x.var(1), x.std(1)), random(3, 512, mean=1000.0, scale=16.0))


def test_a_variance_comes_with_its_mean(x):
    report = check(lambda x: (*torch.var_mean(x, 1), *torch.std_mean(x, correction=0)), x, cancels=True)
    assert calls(report) == ["var", "mean", "std", "mean"]


# --- norms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [-1, 0, None, (0, 2)])
def test_a_euclidean_norm_is_the_root_of_a_sum_of_squares(dim):
    report = check(lambda x: torch.linalg.vector_norm(x, dim=dim), positive(2, 3, 33), roundings=3)
    assert calls(report) == ["multiply", "sum", "sqrt"]


NORMS = {
    1: ["abs", "sum"],
    INF: ["abs", "max"],
    -INF: ["abs", "min"],
    0: ["ne", "sum"],
    3: ["abs", "pow", "sum", "pow"],
}


@pytest.mark.parametrize("order", NORMS)
@pytest.mark.parametrize("dim", [None, 1, (0, -1)])
def test_norms_of_any_order(order, dim):
    x = torch.relu(random(2, 3, 33))
    report = check(lambda x: torch.linalg.vector_norm(x, order, dim=dim, keepdim=True), x, roundings=5)
    assert calls(report) == NORMS[order]


@pytest.mark.parametrize("order", [0.5, -1.5])
def test_norms_of_fractional_order(order):
    check(lambda x: torch.linalg.vector_norm(x, order, dim=-1), positive(3, 33), roundings=8)


def test_vectors_are_normalized():
    check(lambda x: F.normalize(x, dim=-1), positive(2, 3, 33), roundings=4)


def test_distances_are_norms_of_differences():
    a, b = positive(4, 33), -positive(4, 33)
    check(lambda a, b: (torch.dist(a, b, 3), F.pairwise_distance(a, b)), a, b, roundings=6)


@pytest.mark.parametrize("order", [1.0, 2.0, INF])
def test_distances_of_all_pairs(order):
    a, b = random(2, 5, 33), random(2, 7, 33)
    check(lambda a, b: torch.cdist(a, b, order, "donot_use_mm_for_euclid_dist"), a, b, roundings=4)


# --- others ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [-1, 0, (0, 2)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_a_logarithm_of_a_sum_of_powers_neither_overflows_nor_vanishes(dim, keepdim):
    x = random(3, 33, 5) * 100
    check(lambda x: (x.logsumexp(dim, keepdim), (x - 1024).logsumexp(dim, keepdim)), x, roundings=2)


def test_a_logarithm_of_a_sum_of_powers_of_infinities_is_that_of_eager_torch():
    x = torch.tensor([[1.0, -INF, 2.0], [-INF, -INF, -INF], [INF, 1.0, -INF], [NAN, 1.0, 2.0]])
    check(lambda x: x.logsumexp(1), x)


def test_sums_and_means_of_what_is_a_number():
    x = positive(4, 33)
    x[1], x[2, 3] = NAN, NAN
    check(lambda x: (x.nansum(), x.nansum(1, keepdim=True)), x, roundings=1)
    check(lambda x: x.nanmean(1), x, roundings=3)


def test_reductions_of_nothing_are_eagers():
    def reduced(x):
        return x.sum(), x.sum(0), x.prod(1), x.any(), x.all(1)

    outputs, _ = compiled(reduced, torch.empty(3, 0))
    torch.testing.assert_close(outputs, reduced(torch.empty(3, 0)), rtol=0, atol=0)


def test_a_dimension_named_twice_is_an_error_as_in_eager_torch():
    with pytest.raises(Exception, match="duplicate value in the list of dims"):
        compiled(lambda x: x.sum((0, -2)), random(2, 3))
