"""The cheapest choice is that of all choices, and many variables take no longer each than few."""

from __future__ import annotations

import itertools
import random

import pytest

from tt_dynamo.passes.place.search import MOST_NEIGHBOURS, Scope, Table, cheapest


def tables(counts: list[int], scopes: list[Scope], numbers: random.Random) -> list[tuple[Scope, Table]]:
    """A random cost of each scope."""
    return [
        (scope, {key: numbers.randint(0, 9) for key in itertools.product(*(range(counts[v]) for v in scope))})
        for scope in scopes
    ]


def total(costs: list[tuple[Scope, Table]], choice: tuple[int, ...]) -> float:
    return sum(table[tuple(choice[v] for v in scope)] for scope, table in costs)


@pytest.mark.parametrize("seed", range(50))
def test_no_other_choice_is_cheaper(seed: int) -> None:
    numbers = random.Random(seed)
    counts = [numbers.randint(1, 3) for _ in range(numbers.randint(1, 6))]
    most = min(3, len(counts))
    scopes = [tuple(sorted(numbers.sample(range(len(counts)), numbers.randint(1, most)))) for _ in range(seed % 10)]
    costs = tables(counts, scopes, numbers)
    least = min(total(costs, choice) for choice in itertools.product(*map(range, counts)))
    assert total(costs, tuple(cheapest(counts, costs))) == least


def test_a_long_chain_with_leaves_is_solved() -> None:
    links = 2000
    counts, equal = [2] * (2 * links), {(0, 0): 0.0, (1, 1): 0.0, (0, 1): 1.0, (1, 0): 1.0}
    costs: list[tuple[Scope, Table]] = [((v, v + 1), equal) for v in range(links - 1)]
    costs += [((v, v + links), equal) for v in range(links)]
    assert cheapest(counts, [*costs, ((0,), {(0,): 5.0, (1,): 0.0})]) == [1] * (2 * links)


def test_among_too_many_neighbours_variables_take_their_first_option() -> None:
    count = MOST_NEIGHBOURS + 2
    unequal: Table = {(0, 0): 1.0, (1, 1): 1.0, (0, 1): 0.0, (1, 0): 0.0}
    choice = cheapest([2] * count, [(pair, unequal) for pair in itertools.combinations(range(count), 2)])
    assert choice[0] == 0 and sorted(choice) == [0] * (count // 2) + [1] * (count // 2)
