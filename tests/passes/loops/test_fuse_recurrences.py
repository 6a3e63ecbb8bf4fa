"""Loops over tokens become one recurrence; what only looks like one stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.loops import recurrences
from tt_dynamo.passes.loops.recurrences import fuse_recurrences

Tensor = torch.Tensor
LOOPS: dict[str, Callable[..., object]] = {}


def loop(function: Callable[..., object]) -> Callable[..., object]:
    LOOPS[function.__name__] = function
    return function


@loop
def stacked_outputs(a: Tensor, b: Tensor) -> object:
    h, outputs = torch.zeros_like(b[:, 0]), []
    for t in range(a.shape[1]):
        h = a[:, t].sigmoid() * h + b[:, t]
        outputs.append(torch.tanh(h) * 2)
    return torch.stack(outputs, 1)


@loop
def outputs_and_last_state(a: Tensor, b: Tensor) -> object:
    h, outputs = b[:, -1] * 3, []
    for t in range(a.shape[1]):
        h = b[:, t] + h * a[:, t]
        outputs.append(h.unsqueeze(1))
    return torch.cat(outputs, 1), h


@loop
def written_one_by_one(a: Tensor, b: Tensor) -> object:
    h, y = torch.zeros_like(b[:, 0]), torch.zeros_like(b)
    for t in range(a.shape[1]):
        h = a[:, t] * h
        h = h + b[:, t]
        y[:, t] = h
    return y


@loop
def last_state_alone(a: Tensor, b: Tensor) -> object:
    h = torch.zeros_like(b[:, 0])
    for x, y in zip(a.unbind(1), b.unbind(1), strict=True):
        h = x * h + y
    return h.tanh()


@loop
def projected_states(a: Tensor, b: Tensor) -> object:
    h, outputs = torch.zeros_like(b[:, 0, :, None] * b[:, 0, None]), []
    for t in range(a.shape[1]):
        h = a[:, t, :, None] * h + b[:, t, :, None] * a[:, t, None]
        outputs.append((h @ b[:, t].unsqueeze(-1)).squeeze(-1))
    return torch.stack(outputs, dim=-1)


@loop
def decay_of_all_tokens(a: Tensor, b: Tensor) -> object:
    h, outputs = a[:, 0], []
    for t in range(a.shape[1]):
        h = 0.9 * h + b[:, t]
        outputs.append(h)
    return torch.stack(outputs)


@loop
def state_before_each_token(a: Tensor, b: Tensor) -> object:
    h, outputs = a[:, 0], []
    for t in range(a.shape[1]):
        outputs.append(h + b[:, t])
        h = h * a[:, t] + b[:, t]
    return torch.stack(outputs, 1)


def largest_so_far(a: Tensor, b: Tensor) -> object:
    m, outputs = b[:, 0] * 0 - 5, []
    for t in range(a.shape[1]):
        m = torch.maximum(m + -b[0, 0].abs(), a[:, t])
        outputs.append(m)
    return torch.stack(outputs, 1), m


def operands(tokens: int = 12) -> tuple[Tensor, Tensor]:
    return random(2, tokens, 5), random(2, tokens, 5)


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_becomes_one_recurrence(name: str) -> None:
    graph = capture(LOOPS[name], *operands())
    assert graph.apply(fuse_recurrences, exact=False) == 1
    assert graph.only(operators.linear_recurrence)
    assert len(graph.targets()) < 30


@pytest.mark.parametrize(("tokens", "rows"), [(8, 32), (40, 32), (40, 4)])
def test_a_running_maximum_is_taken_in_chunks(tokens: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrences, "ROWS", rows)
    graph = capture(largest_so_far, *operands(tokens))
    assert graph.apply(fuse_recurrences, exact=False) == 1
    assert len(graph.targets()) < 100
    assert not graph.calls(aten.stack.default)


def short(a: Tensor, b: Tensor) -> object:
    return stacked_outputs(a[:, :4], b)


def state_through_tanh(a: Tensor, b: Tensor) -> object:
    h, outputs = b[:, 0], []
    for t in range(a.shape[1]):
        h = torch.tanh(a[:, t] * h + b[:, t])
        outputs.append(h)
    return torch.stack(outputs, 1)


def tokens_out_of_order(a: Tensor, b: Tensor) -> object:
    h, outputs = b[:, 0], []
    for t in range(a.shape[1]):
        h = a[:, t // 2] * h + b[:, t]
        outputs.append(h)
    return torch.stack(outputs, 1)


def no_state(a: Tensor, b: Tensor) -> object:
    return torch.stack([a[:, t] * b[:, t] for t in range(a.shape[1])], 1)


def other_factor_at_one_token(a: Tensor, b: Tensor) -> object:
    h, outputs = b[:, 0], []
    for t in range(a.shape[1]):
        h = (a[:, t] if t != 5 else b[:, t]) * h + b[:, t]
        outputs.append(h)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize(
    "function", [short, state_through_tanh, tokens_out_of_order, no_state, other_factor_at_one_token]
)
def test_what_is_no_recurrence_stays(function: Callable[..., object]) -> None:
    graph = capture(function, *operands())
    before = graph.targets()
    assert graph.apply(fuse_recurrences) == 0
    assert graph.targets() == before


def test_the_operator_is_the_loop() -> None:
    for tokens in (1, 2, 7, 33):
        a, b, h = random(tokens, 3, 4), random(tokens, 3, 4), random(3, 4)
        expected, state = [], h
        for t in range(tokens):
            state = a[t] * state + b[t]
            expected.append(state)
        torch.testing.assert_close(operators.linear_recurrence(a, b, h), torch.stack(expected))
