"""The cheapest choice of an option for each of many variables, where each cost depends on a few of them.

Variables go one after another, the one with the fewest neighbours first: what its costs are with the best of its
options, for each choice of its neighbours, takes their place. In chains and trees, however long, that is one small
table for each variable. Source: Bertelè and Brioschi, Nonserial Dynamic Programming, 1972.
"""

import heapq
import itertools
from collections.abc import Iterable, Sequence

# Variables in ascending order, and their options, counted from 0.
Scope = tuple[int, ...]
Options = tuple[int, ...]
Table = dict[Options, float]
# A variable with more neighbours takes its first option: a table of all their choices would be too large.
MOST_NEIGHBOURS = 8


def cheapest(counts: Sequence[int], costs: Iterable[tuple[Scope, Table]]) -> list[int]:
    """The option of each variable with which the sum of costs is least; of equal ones the first.

    counts: how many options each variable has. costs: what each cost is by the options of its scope.
    """
    sums = _Sums(counts)
    for scope, table in costs:
        sums.add(scope, table)
    queue = [(len(near), variable) for variable, near in enumerate(sums.near)]
    heapq.heapify(queue)
    order: list[tuple[int, Scope, dict[Options, int]]] = []
    while queue:
        degree, variable = heapq.heappop(queue)
        if variable in sums.left and degree == len(sums.near[variable]):  # else it waits with another degree
            near = tuple(sorted(sums.near[variable]))
            order.append((variable, *sums.eliminate(variable, near if degree <= MOST_NEIGHBOURS else ())))
            for other in near:
                heapq.heappush(queue, (len(sums.near[other]), other))
    chosen: dict[int, int] = {}
    for variable, scope, best in reversed(order):
        chosen[variable] = best[tuple(chosen[other] for other in scope)]
    return [chosen[variable] for variable in range(len(counts))]


class _Sums:
    """Costs of the variables that are left, those of one scope in one table, and which variables share any."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = counts
        self.left: dict[int, dict[Scope, Table]] = {variable: {} for variable in range(len(counts))}
        self.near: list[set[int]] = [set() for _ in counts]

    def add(self, scope: Scope, table: Table) -> None:
        known = self.left[scope[0]].get(scope) if scope else None
        total = table if known is None else {key: cost + known[key] for key, cost in table.items()}
        for variable in scope:
            self.left[variable][scope] = total
            self.near[variable].update({*scope} - {variable})

    def eliminate(self, variable: int, near: Scope) -> tuple[Scope, dict[Options, int]]:
        """Put costs of its neighbours in place of its own; returns its best option by theirs.

        near: its neighbours; of many none, and it takes its first option.
        """
        tables = self.left.pop(variable)
        for other in self.near[variable]:
            self.near[other].discard(variable)
            for scope in tables:
                self.left[other].pop(scope, None)
        if len(near) < len(self.near[variable]):
            for scope, table in tables.items():
                at = scope.index(variable)
                first = {(*key[:at], *key[at + 1 :]): cost for key, cost in table.items() if not key[at]}
                self.add((*scope[:at], *scope[at + 1 :]), first)
            return (), {(): 0}
        least: Table = {}
        best: dict[Options, int] = {}
        for key in itertools.product(*(range(self._counts[other]) for other in near)):
            totals = []
            for option in range(self._counts[variable]):
                options = {**dict(zip(near, key, strict=True)), variable: option}
                totals.append(sum(table[tuple(options[v] for v in scope)] for scope, table in tables.items()))
            least[key] = min(totals)
            best[key] = totals.index(least[key])
        self.add(near, least)
        return near, best
