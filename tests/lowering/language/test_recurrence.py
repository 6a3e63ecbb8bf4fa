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


def attend_with_decay(x: torch.Tensor, steps: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """A state space as one product of all tokens: x, b, c [batch, tokens, heads 32], steps [batch, tokens, heads]."""
    heads = steps.shape[-1]
    sums = (steps * -torch.arange(1.0, heads + 1)).cumsum(1)
    unseen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    decays = (sums[:, :, None] - sums[:, None]).masked_fill(unseen[..., None], -torch.inf).exp()
    x, b, c = (part.unflatten(-1, (heads, 32)) for part in (x, b, c))
    return torch.einsum("btsh,bshp->bthp", torch.einsum("bthn,bshn->btsh", c, b) * decays * steps[:, None], x)


def test_decays_of_segments_are_taken_from_float32_sums() -> None:
    x, b, c = (random(2, 40, 64) for _ in range(3))
    steps = positive(2, 40, 2) + 16  # of sums of hundreds, bfloat16 would keep no digit of a difference
    outputs, report = without_dynamo(attend_with_decay, x, steps, b, c)
    assert not report.fallbacks
    made = calls(report)
    assert made.count("cumsum") == 1 and made.count("matmul") == 2
    assert len(made) <= 30
    close(outputs, attend_with_decay(x, steps, b, c), roundings=6, cancels=True)
