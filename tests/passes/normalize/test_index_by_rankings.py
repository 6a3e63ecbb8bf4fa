"""Reads and writes at the places that a ranking gave need no checks; those at any other places keep theirs."""

from __future__ import annotations

import torch
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.normalize.rankings import index_by_rankings


def test_a_gather_at_the_largest_places_is_one_of_a_ranking() -> None:
    graph = capture(lambda x, y: y.gather(1, x.topk(3)[1]), random(4, 9), random(4, 9))
    assert graph.apply(index_by_rankings) == 1
    graph.only(operators.gather_ranked)


def test_writes_of_values_and_of_a_number_are_too() -> None:
    def write(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values, places = x.topk(3)
        return torch.zeros_like(x).scatter(1, places, values), torch.zeros_like(x).scatter(1, places, 1.0)

    graph = capture(write, random(4, 9))
    assert graph.apply(index_by_rankings) == 2
    assert not graph.calls(aten.scatter.src, aten.scatter.value)


def test_a_ranking_of_a_longer_dimension_or_along_another_one_is_left_alone() -> None:
    longer = capture(lambda x, y: y.gather(1, x.topk(3)[1] % 5), random(4, 9), random(4, 5))
    across = capture(lambda x, y: y.gather(1, x.topk(3, 0)[1]), random(4, 9), random(3, 9))
    shorter = capture(lambda x, y: y.gather(1, x[:, :5].topk(3)[1]), random(4, 9), random(4, 9))
    assert longer.apply(index_by_rankings) == 0
    assert across.apply(index_by_rankings) == 0
    assert shorter.apply(index_by_rankings) == 1
