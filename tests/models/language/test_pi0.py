"""A model shaped as pi0, from pixels and words to actions in steps of flow matching: whole on the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comparison import pcc, relative_error
from decoders import enliven
from pi0 import ACTION_SIZE, HORIZON, STEPS, Pi0, PrefixCache, inputs

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


@pytest.fixture
def model() -> Any:
    return enliven(Pi0()).eval()


# Three steps by default: the seven others are the same again, in one graph with them.
@pytest.mark.parametrize(
    ("batch", "steps"),
    [(1, 3), pytest.param(1, STEPS, marks=pytest.mark.slow), pytest.param(2, 3, marks=pytest.mark.slow)],
)
@torch.no_grad()
def test_actions_are_eager_s_and_nothing_falls_back(batch: int, steps: int) -> None:
    model, given = enliven(Pi0(steps)).eval(), inputs(batch)
    eager = model(*given)
    with tt_dynamo.record() as reports:
        ours = torch.compile(model, backend="ttnn")(*given)
    assert ours.shape == (batch, HORIZON, ACTION_SIZE) and ours.dtype == eager.dtype
    assert pcc(ours, eager) >= 0.99
    assert pcc(ours - given[3], eager - given[3]) >= 0.99, "what the steps add to the noise"
    assert relative_error(ours, eager) <= 0.05
    (report,) = reports
    assert report.fallbacks == []


@torch.no_grad()
def test_one_graph_of_a_step_serves_many(model: Any) -> None:
    images, instruction, state, noise = inputs(1)
    prefix = torch.compile(lambda *given: lists(model.prefix(*given)), backend="ttnn")
    step = torch.compile(lambda cache, *given: model.velocity(filled(cache), *given), backend="ttnn")
    with tt_dynamo.record() as reports:
        cache, actions = prefix(images, instruction), noise
        for _ in range(3):
            actions = actions - step(cache, state, actions, 0.5) / 10
    eager_cache, eager = model.prefix(images, instruction), noise
    for _ in range(3):
        eager = eager - model.velocity(eager_cache, state, eager, 0.5) / 10
    assert len(reports) == 2
    assert all(report.fallbacks == [] for report in reports)
    assert pcc(actions - noise, eager - noise) >= 0.99
    assert relative_error(actions, eager) <= 0.05


@torch.no_grad()
def test_every_input_is_heard(model: Any) -> None:
    """What the first test compares would be wrong by far if a part of the model were missing."""
    given = inputs(1)
    whole = model(*given) - given[3]
    for number, other in enumerate(inputs(3)):
        changed = list(given)
        changed[number] = other[:1]
        assert relative_error(model(*changed) - changed[3], whole) > 0.1, number


def lists(cache: PrefixCache) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return cache.keys, cache.values


def filled(lists: tuple[list[torch.Tensor], list[torch.Tensor]]) -> PrefixCache:
    cache = PrefixCache()
    cache.keys, cache.values = lists
    cache.filled = True
    return cache
