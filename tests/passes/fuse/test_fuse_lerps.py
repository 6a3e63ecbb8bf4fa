"""Means with weights that sum to one become lerp; other sums stay."""

from __future__ import annotations

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.lerps import fuse_lerps

Tensor = torch.Tensor


@pytest.mark.parametrize("size", [(1, 1, 8), (2, 5, 8)], ids=["a row", "each element"])
def test_a_mean_of_two_values_is_one_operation(size: tuple[int, ...]) -> None:
    def mix(x: Tensor, before: Tensor, weight: Tensor) -> Tensor:
        return (1 - weight) * before + x * weight

    graph = capture(mix, random(2, 5, 8), random(2, 5, 8), random(*size))
    assert graph.apply(fuse_lerps, exact=False) == 1
    assert graph.only(aten.lerp.Tensor)
    assert not graph.calls(aten.mul.Tensor, aten.sub.Tensor, aten.rsub.Scalar)


@pytest.mark.parametrize("size", [(1,), (2, 1, 1), (2, 1, 8)])
def test_a_weight_that_broadcasts_otherwise_stays(size: tuple[int, ...]) -> None:
    graph = capture(lambda x, y, weight: x * weight + y * (1 - weight), random(2, 5, 8), random(2, 5, 8), random(*size))
    assert graph.apply(fuse_lerps) == 0


def test_weights_that_sum_to_something_else_stay() -> None:
    def mix(x: Tensor, before: Tensor, weight: Tensor, other: Tensor) -> Tensor:
        return x * weight + before * (2 - weight) + x * other + before * (1 - weight)

    assert capture(mix, *(random(2, 5, 8) for _ in range(4))).apply(fuse_lerps) == 0
