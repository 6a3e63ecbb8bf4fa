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


class Wkv(torch.nn.Module):
    """The wkv of RWKV with its exponentials as they are: keys, values [batch, tokens, channels]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.decay, self.bonus = torch.nn.Parameter(-positive(channels)), torch.nn.Parameter(random(channels))

    def forward(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        total = weight = torch.zeros_like(keys[:, 0])
        outputs = []
        for key, value in zip(keys.unbind(1), values.unbind(1), strict=True):
            own = (self.bonus + key).exp()
            outputs.append((total + own * value) / (weight + own))
            total = self.decay.exp() * total + key.exp() * value
            weight = self.decay.exp() * weight + key.exp()
        return torch.stack(outputs, 1)


@pytest.mark.parametrize("shape", [(1, 8, 64), (2, 33, 40)])
def test_wkv_is_one_softmax_and_one_product(shape: tuple[int, ...]) -> None:
    model, keys, values = Wkv(shape[-1]).eval(), random(*shape), random(*shape)
    outputs, report = without_dynamo(model, keys, values)
    assert not report.fallbacks
    assert calls(report).count("softmax") == calls(report).count("matmul") == 1
    assert report.device_programs == 6
    close(outputs, model(keys, values), roundings=4, cancels=True)


def test_wkv_with_far_larger_keys_behind_small_ones_is_finite() -> None:
    model, keys, values = Wkv(64).eval(), random(1, 40, 64), random(1, 40, 64)
    keys = (keys + torch.linspace(-200, 200, 40)[:, None]).bfloat16().float()
    outputs, _ = without_dynamo(model, keys, values)
    steps = torch.arange(40)[:, None] - 1 - torch.arange(40)
    gaps = torch.where(steps < 0, model.bonus[:, None, None], steps * model.decay[:, None, None])
    scores = keys.mT[:, :, None] + gaps + torch.full((40, 40), -torch.inf).triu(1)
    expected = (scores.softmax(-1) @ values.mT[..., None])[..., 0].mT.contiguous()
    close(outputs, expected, roundings=4, cancels=True)
