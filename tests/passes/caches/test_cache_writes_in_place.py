"""Writes into caches: one token at its position, a prompt from the first row, and what must be left alone."""

from __future__ import annotations

import pytest
import torch
from captured import Captured, capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Assumption, aten
from tt_dynamo.passes.caches.hold import cache_writes_in_place

LENGTH = 8


def cache() -> torch.Tensor:
    return random(2, 3, LENGTH, 4)


def write(keys: torch.Tensor, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """As transformers' StaticCache writes."""
    keys.index_copy_(2, torch.arange(x.shape[2]) + start, x)
    return keys * 2


def captured(model, *inputs) -> Captured:
    return capture(model, *inputs)


def test_one_token_is_written_at_its_position() -> None:
    graph = captured(write, cache(), random(2, 3, 1, 4), torch.tensor(5))
    assert graph.apply(cache_writes_in_place) == 1
    update = graph.only(operators.update_cache)
    assert not graph.calls(aten.index_copy.default)
    assert graph.only(aten.copy_.default).args[1] is update
    assert not graph.context.assumptions


def test_a_prompt_is_taken_to_start_at_the_first_row() -> None:
    graph = captured(write, cache(), random(2, 3, 5, 4), torch.tensor(0))
    assert graph.apply(cache_writes_in_place) == 1
    assert graph.only(operators.fill_cache)
    (assumption,) = graph.context.assumptions
    assert assumption.value == 0 and len(assumption.placeholders) == 1


def test_a_prompt_is_left_alone_where_nothing_may_be_assumed() -> None:
    graph = captured(write, cache(), random(2, 3, 5, 4), torch.tensor(2))
    graph.context.assume = False
    assert graph.apply(cache_writes_in_place) == 0
    assert graph.only(aten.index_copy.default)


def test_a_prompt_reads_its_own_keys_where_it_slices_them_off() -> None:
    def model(keys: torch.Tensor, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        keys.index_copy_(2, torch.arange(5) + start, x)
        return keys[:, :, :5] * 2

    graph = captured(model, cache(), random(2, 3, 5, 4), torch.tensor(0))
    graph.apply(cache_writes_in_place)
    assert not graph.calls(aten.slice.Tensor)


def test_layers_share_the_position_of_the_first() -> None:
    def model(a: torch.Tensor, b: torch.Tensor, x: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return write(a, x, i) + write(b, x, j)

    graph = captured(model, cache(), cache() + 1, random(2, 3, 1, 4), torch.tensor(5), torch.tensor(5))
    graph.apply(cache_writes_in_place)
    first, second = graph.calls(operators.update_cache)
    assert first.args[2] is second.args[2]
    (assumption,) = graph.context.assumptions
    assert assumption == Assumption(assumption.placeholders, None) and len(assumption.placeholders) == 2


def test_without_assumptions_layers_keep_positions_of_their_own() -> None:
    def model(a: torch.Tensor, b: torch.Tensor, x: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return write(a, x, i) + write(b, x, j)

    graph = captured(model, cache(), cache() + 1, random(2, 3, 1, 4), torch.tensor(5), torch.tensor(2))
    graph.context.assume = False
    graph.apply(cache_writes_in_place)
    first, second = graph.calls(operators.update_cache)
    assert first.args[2] is not second.args[2]


def test_a_cache_made_in_the_graph_is_the_prompt_and_zeros_and_stays_on_the_device() -> None:
    def model(x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        keys = torch.zeros(2, 3, LENGTH, 4)
        keys.index_copy_(2, torch.arange(5) + start, x)
        return keys

    graph = captured(model, random(2, 3, 5, 4), torch.tensor(0))
    assert graph.apply(cache_writes_in_place) == 1
    assert graph.targets() == [aten.constant_pad_nd.default]
    assert graph.graph.output_node().meta["kept"] == [0]


@pytest.mark.parametrize("rank", [3, 4])
def test_what_else_reads_the_old_contents_keeps_them(rank: int) -> None:
    """A cache that is read before the write, or that has another rank, is no cache."""

    def model(keys: torch.Tensor, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        before = keys.sum() if rank == 4 else 0.0
        return write(keys, x, start) + before if rank == 4 else keys.index_copy_(1, torch.arange(1) + start, x)

    given = (cache(), random(2, 3, 1, 4)) if rank == 4 else (random(3, LENGTH, 4), random(3, 1, 4))
    graph = captured(model, *given, torch.tensor(5))
    assert graph.apply(cache_writes_in_place) == 0


def test_a_prompt_longer_than_its_cache_is_left_to_eager_torch() -> None:
    """Tracing would raise; a write that tracing cannot size stays as it is."""
    graph = captured(write, cache(), random(2, 3, 1, 4), torch.tensor(LENGTH - 1))
    node = graph.only(aten.index_copy.default)
    node.meta["val"], longer = node.meta["val"][:, :, :0], node.args[3]
    assert longer is not None
    assert cache_writes_in_place(graph.graph, graph.context) == 0


SCATTERED = {
    "every other row": lambda start: torch.arange(0, 8, 2),
    "every other row, counted": lambda start: torch.arange(4) * 2,
    "every other row from a start": lambda start: torch.arange(0, 6, 2)[:2] + start,
    "backwards": lambda start: torch.arange(3, -1, -1),
    "flipped": lambda start: torch.arange(4).flip(0),
    "one row twice": lambda start: torch.tensor([1, 0, 0, 2]),
    "listed": lambda start: torch.tensor([0, 2, 3, 7]),
    "below a start": lambda start: start - torch.arange(2),
    "from a row that is known": lambda start: torch.arange(2, 6),
    "counted from a row that is known": lambda start: torch.arange(4) + 2,
    "spread from a start": lambda start: torch.arange(2) * 3 + start,
    "a start added twice": lambda start: torch.add(torch.arange(2), start, alpha=2),
    "from a row beside a start": lambda start: torch.arange(1, 3) + start,
    "a choice": lambda start: torch.where(start > 0, torch.arange(4), torch.arange(4) + 1),
}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("rows", SCATTERED)
def test_rows_that_do_not_follow_one_another_are_written_where_they_belong(rows: str, fresh: bool) -> None:
    def model(keys: torch.Tensor, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        keys = torch.zeros(2, 3, LENGTH, 4) if fresh else keys
        positions = SCATTERED[rows](start)
        return keys.index_copy_(2, positions, x[:, :, : len(positions)])

    graph = captured(model, cache(), random(2, 3, 5, 4), torch.tensor(1))
    assert graph.apply(cache_writes_in_place) == 0
    assert not graph.context.assumptions


FOLLOWING = {
    "counted": lambda: torch.arange(4),
    "counted in int32": lambda: torch.arange(4, dtype=torch.int32).long(),
    "from zero": lambda: torch.arange(0, 4),
    "by ones": lambda: torch.arange(0, 4, 1),
    "listed": lambda: torch.tensor([0, 1, 2, 3]),
    "flipped twice": lambda: torch.arange(3, -1, -1).flip(0),
}


@pytest.mark.parametrize("rows", FOLLOWING)
def test_a_prompt_at_known_rows_is_written_from_the_first(rows: str) -> None:
    graph = captured(lambda keys, x: keys.index_copy_(2, FOLLOWING[rows](), x), cache(), random(2, 3, 4, 4))
    assert graph.apply(cache_writes_in_place) == 1
    assert graph.only(operators.fill_cache)
    assert not graph.context.assumptions


@pytest.mark.parametrize("row", [0, 5])
def test_one_row_of_a_new_cache(row: int) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(2, 3, LENGTH, 4).index_copy_(2, torch.tensor([row]), x)

    graph = captured(model, random(2, 3, 1, 4))
    assert graph.apply(cache_writes_in_place) == (row == 0)


def slide(keys: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """As transformers' sliding cache writes once it is full."""
    rolled = keys.roll(-1, dims=-2)
    rolled[:, :, torch.tensor([-1])] = x
    keys.copy_(rolled)
    return keys * 2


def test_a_full_cache_that_slides_is_written_whole() -> None:
    graph = captured(slide, cache(), random(2, 3, 1, 4))
    assert graph.apply(cache_writes_in_place) == 1
    new = graph.only(operators.slide_cache)
    assert graph.only(aten.copy_.default).args[1] is new
    assert not graph.calls(aten.roll.default) and not graph.calls(aten.index_put.default)


def other_row(keys: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    rolled = keys.roll(-1, dims=-2)
    rolled[:, :, torch.tensor([-2])] = x
    keys.copy_(rolled)
    return keys * 2


def other_way(keys: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    rolled = keys.roll(1, dims=-2)
    rolled[:, :, torch.tensor([-1])] = x
    keys.copy_(rolled)
    return keys * 2


def old_contents_read(keys: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    total = keys.sum()
    return slide(keys, x) + total


@pytest.mark.parametrize("model", [other_row, other_way, old_contents_read])
def test_what_only_resembles_a_sliding_cache_stays(model) -> None:
    graph = captured(model, cache(), random(2, 3, 1, 4))
    assert graph.apply(cache_writes_in_place) == 0
    assert graph.only(aten.roll.default)
