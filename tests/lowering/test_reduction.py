"""Reductions."""

import pytest
import torch
import torch.nn.functional as F
from compiled import calls, check, falls_back, positive

DIMS = [(-1, False), (-1, True), (0, False), (1, True), ((0, 1), False), ((1, 2), True), ((0, 1, 2), False)]


@pytest.mark.parametrize(("dim", "keepdim"), DIMS, ids=str)
@pytest.mark.parametrize("name", ["mean", "sum"])
def test_any_dimensions_are_reduced(name, dim, keepdim):
    report = check(lambda x: getattr(x, name)(dim, keepdim=keepdim), positive(2, 3, 33))
    assert calls(report) == [name]


@pytest.mark.parametrize("shape", [(1,), (33,), (64, 32), (2, 2, 2, 5)], ids=str)
def test_values_of_any_shape_are_reduced(shape):
    check(lambda x: x.sum(-1), positive(*shape))


@pytest.mark.parametrize("dim", [-1, 0, None, (0, 2)])
def test_a_euclidean_norm_is_the_root_of_a_sum_of_squares(dim):
    report = check(lambda x: torch.linalg.vector_norm(x, dim=dim), positive(2, 3, 33), roundings=3)
    assert calls(report) == ["multiply", "sum", "sqrt"]


def test_vectors_are_normalized():
    check(lambda x: F.normalize(x, dim=-1), positive(2, 3, 33), roundings=4)


@pytest.mark.parametrize("order", [1, 3, float("inf")])
def test_norms_of_other_orders_give_eagers_answer(order):
    fallback = falls_back(lambda x: torch.linalg.vector_norm(torch.relu(x), order, dim=-1), positive(3, 5))
    assert f"order {order}" in fallback.reason
