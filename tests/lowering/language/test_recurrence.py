"""Recurrences along time: prefix scans in width shards, and eager's answer."""

from __future__ import annotations

import pytest
import torch
from compiled import calls, close, positive, random, without_dynamo


def loop(a: torch.Tensor, b: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
    states = []
    for factor, term in zip(a.unbind(0), b.unbind(0), strict=True):
        state = factor * state + term
        states.append(state)
    return torch.stack(states)


@pytest.mark.parametrize("shape", [(8, 64), (33, 2, 100), (9, 2, 3, 40), (40, 1, 2500)])
def test_a_recurrence_is_a_scan_in_shards(shape: tuple[int, ...]) -> None:
    terms, state = positive(*shape), positive(*shape[1:])
    factors = terms / (2 * terms.max())  # what is rounded at one token is at most half as much at the next
    outputs, report = without_dynamo(loop, factors, terms, state)
    assert not report.fallbacks
    made = calls(report)
    assert made.count("experimental.prefix_scan") == 1
    assert made.count("to_memory_config") == 4
    assert len(made) <= 9
    close(outputs, loop(factors, terms, state), roundings=6)


def test_what_does_not_fit_the_cores_is_scanned_in_parts() -> None:
    factors, terms, state = random(8, 1 << 19), random(8, 1 << 19), random(1 << 19)
    _, report = without_dynamo(loop, factors, terms, state, dry_run=True)
    made = calls(report)
    assert not report.fallbacks
    assert made.count("experimental.prefix_scan") == made.count("slice") / 3 > 1
