"""Sorting and the places of extremes. Both look where the operand lies: on the device after an operation there."""

import pytest
import torch
from compiled import calls, check, compiled, random

SHAPES = [(700,), (40, 33), (7, 40, 33), (8, 4, 40, 33), (8, 2, 8, 20, 33), (8, 1, 2, 8, 8, 33)]
NAN, INF = float("nan"), float("inf")


def distinct(*shape):
    """Numbers that bfloat16 holds, no two of 251 neighbours along any dimension alike; none of them 0."""
    places = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"))
    steps = torch.tensor([89, 57, 101, 23, 71, 149])[: len(shape)].reshape(-1, *[1] * len(shape))
    return ((places * steps).sum(0) % 251 - 125).float() + 0.5


def exactly(model, x):
    """The calls of a model whose answer, in float32 of few bits, is eager's to the last one."""
    return calls(check(model, x, roundings=0))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_places_of_extremes_along_any_dimension_are_exact(shape):
    for dim in {0, len(shape) // 2, -1}:
        found = exactly(lambda x, dim=dim: (x.neg().argmax(dim), x.neg().argmin(dim, keepdim=True)), distinct(*shape))
        assert found.count("argmax") == 2


def test_the_places_of_extremes_among_all_elements_count_in_order():
    found = exactly(lambda x: (x.neg().argmax(), x.neg().argmin(), x.neg().argmax(keepdim=True)), distinct(7, 40, 33))
    assert found.count("argmax") == 3


def test_a_place_beyond_what_bfloat16_holds_is_exact():
    x = torch.zeros(2, 3001)
    x[0, 2999], x[1, 257] = -1, -1
    exactly(lambda x: x.neg().argmax(1), x)


def test_the_first_of_equal_elements_is_found():
    x = torch.ones(40, 33)
    x[3], x[:, 5] = -1, -2
    exactly(lambda x: (x.neg().argmax(1), x.neg().argmax(0), x.neg().argmin(1), *x.neg().max(1), *x.neg().min(0)), x)


def test_the_first_nan_is_the_largest_and_the_smallest():
    x = random(400, 33)
    x[3, 7], x[3, 9], x[5, 0], x[6], x[7] = NAN, NAN, INF, INF, -INF
    found = exactly(lambda x: (x.neg().argmax(1), x.neg().argmin(1), *x.neg().max(1), *x.neg().min(1)), x)
    assert found.count("argmax") == 4


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_extremes_come_with_their_places(dim, keepdim):
    found = exactly(lambda x: (*x.neg().max(dim, keepdim), *x.neg().min(dim, keepdim)), distinct(40, 40, 40))
    assert found.count("argmax") == 2 and {"max", "min"} <= set(found)


def test_only_what_is_read_of_an_extreme_is_computed():
    assert exactly(lambda x: x.neg().max(1)[0], distinct(40, 33)) == ["neg", "max"]
    assert "max" not in exactly(lambda x: x.neg().max(1)[1], distinct(40, 33))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_elements_are_sorted_along_any_dimension(shape, descending):
    for dim in {0, len(shape) // 2, -1}:
        found = exactly(lambda x, dim=dim: x.neg().sort(dim, descending)[0].neg(), distinct(*shape))
        assert found == ["neg", "typecast", "sort", "typecast", "neg"]


def test_equal_elements_stay_in_order():
    def places(x):
        orders = [(dim, descending) for dim in (0, 1) for descending in (False, True)]
        return [torch.sort(x.neg(), stable=True, dim=dim, descending=down)[1][:3] for dim, down in orders]

    x = (torch.arange(400 * 60).reshape(400, 60) % 7).float()
    assert exactly(places, x).count("sort") == 4


def test_nan_is_sorted_as_the_largest_element():
    x = random(40, 33)
    x[3, 7], x[3, 9], x[5, 0], x[5, 2] = NAN, NAN, INF, -INF
    exactly(lambda x: (x.abs().sort(1)[0].abs(), x.abs().sort(dim=1, descending=True, stable=True)[1][:, :3]), x)


def test_the_largest_and_smallest_elements_come_in_order_with_their_places():
    def top(x):
        y = x.neg()
        return *y.topk(3), *y.topk(2, dim=1, largest=False), *y.topk(1, 0)

    assert exactly(top, distinct(60, 50, 128)).count("topk") == 3


def test_as_many_elements_as_there_are_can_be_asked_for():
    x = torch.randperm(40, generator=torch.Generator().manual_seed(0)).float().repeat(40, 1)
    exactly(lambda x: x.neg().topk(40)[0].neg(), x)


def test_more_elements_than_an_index_of_16_bits_reaches_are_sorted():
    x = torch.zeros(70000)
    x[69999], x[65536], x[5] = -3, -2, -1
    exactly(lambda x: (*x.neg().topk(3), x.neg().argmax()), x)


def test_inputs_are_ranked_on_the_host_where_they_are_exact():
    x = torch.tensor([1.0, 1.0 + 2**-20, 1.0 - 2**-20])
    outputs, report = compiled(lambda x: (x.argmax(), *x.sort(), *x.topk(2), *x.max(0)), x)
    assert not report.fallbacks and not report.device_nodes
    expected = (x.argmax(), *x.sort(), *x.topk(2), *x.max(0))
    assert all(torch.equal(output, value) for output, value in zip(outputs, expected, strict=True))


def test_a_single_number_is_in_place():
    check(lambda x: (x.neg().argmax(), x.neg().argmin(0)), torch.tensor(1.5), roundings=0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_integers_are_ranked_exactly(dtype):
    x = torch.tensor([(1 << 24) + 1, 1 << 24, -(1 << 24) - 1, -(1 << 24), -(1 << 24) - 3], dtype=dtype)

    def ranked(x):
        return x.argmax(), x.argmin(), *x.sort(), *x.sort(descending=True), *x.topk(2), *x.max(0), *x.min(0)

    outputs, _ = compiled(ranked, x)
    assert all(torch.equal(output, value) for output, value in zip(outputs, ranked(x), strict=True))
