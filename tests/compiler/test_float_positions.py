"""Positions that are float32 keep their digits where those count: angles, exponents, comparisons, indices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparison import check
from torch import Tensor

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

generator = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(128, 32, generator=generator)
DIRECTIONS = torch.randn(2, 64, generator=generator) * 10
FREQUENCIES = torch.exp(-torch.arange(64) / 64 * 9.21)


def timesteps(t: Tensor) -> Tensor:
    angles = t[:, None].float() * FREQUENCIES
    return torch.cat([angles.cos(), angles.sin()], -1) @ WEIGHT


def logarithmic_timesteps(t: Tensor) -> Tensor:
    return (torch.log(t)[:, None] * 250 * FREQUENCIES).sin() @ WEIGHT[:64]


def rotary(x: Tensor, positions: Tensor) -> Tensor:
    angles = positions[:, :, None] / 10000 ** (torch.arange(0, 32, 2) / 32)
    angles = torch.cat([angles, angles], -1)
    turned = torch.cat([-x[..., 16:], x[..., :16]], -1)
    return x * angles.cos()[:, None] + turned * angles.sin()[:, None]


def turned_by_double_tables(x: Tensor, positions: Tensor) -> Tensor:
    """Flux makes its tables in float64."""
    angles = torch.outer(positions, 1.0 / 10000 ** (torch.arange(0, 32, 2, dtype=torch.float64) / 32))
    cos, sin = (wave.repeat_interleave(2, dim=1).float() for wave in (angles.cos(), angles.sin()))
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack((-imaginary, real), -1).flatten(-2) * sin


def fourier_features(x: Tensor) -> Tensor:
    return torch.sin(2 * math.pi * x @ DIRECTIONS) @ WEIGHT[:64]


def octaves(x: Tensor) -> Tensor:
    return torch.sin(x[..., None] * 2.0 ** torch.arange(10) * math.pi).flatten(-2) @ WEIGHT[:30]


def beyond_a_threshold(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x > 0.9999, y @ y, y)


def beyond_a_scaled_threshold(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(x * 1000 - 999 > 0.5, y @ y, y)


def buckets(x: Tensor) -> Tensor:
    return torch.nn.functional.embedding(torch.bucketize(x, torch.linspace(0, 1, 100)), WEIGHT) @ WEIGHT.t()


def searched(x: Tensor) -> Tensor:
    return torch.nn.functional.embedding(torch.searchsorted(torch.linspace(0, 1, 100), x), WEIGHT) @ WEIGHT.t()


def indices(x: Tensor) -> Tensor:
    return torch.nn.functional.embedding((x * 100).long(), WEIGHT) @ WEIGHT.t()


def neighbouring_indices(x: Tensor) -> Tensor:
    return torch.nn.functional.embedding(((x * 100).long()[:, None] + torch.arange(3)) % 128, WEIGHT) @ WEIGHT.t()


def places_among_pixels(x: Tensor) -> Tensor:
    """What Pix2Struct's patches begin with."""
    return torch.nn.functional.embedding(x[:, 0].long(), torch.relu(WEIGHT.repeat(3, 1))) + x[:, 1:] @ WEIGHT[:31]


def rounded(x: Tensor) -> Tensor:
    return (x * 1000).round() % 7 @ WEIGHT[:32]


def places_in_a_grid(row: Tensor, height: Tensor) -> Tensor:
    """What Qwen3-VL and Pix2Struct look up: a learned grid of 8, read between its rows at rows of an image."""
    place = (row % height + 0.5) * 8 / height - 0.5
    step, two = place.floor(), torch.arange(2)
    rows = (step.long()[:, None] + two).clamp(0, 7)
    weights = (1 - (place[:, None] - step[:, None] - two).abs()).clamp(min=0)
    return (torch.nn.functional.embedding(rows * 16 + 3, WEIGHT) * weights[..., None]).sum(1) @ WEIGHT.t()


def blocks_of_a_text(mask: Tensor) -> Tensor:
    """What LongT5 looks up: which block of 8 tokens each token is in, counted in fractions; -1 where it is padding."""
    fractions = torch.ones_like(mask) / 8
    block = torch.floor(mask + fractions.cumsum(1) - fractions - 1.0).long() * mask + mask - 1
    last = torch.logical_and(torch.arange(64) % 8 == 7, block >= 0).sum(-1, keepdim=True) - 1
    return torch.nn.functional.embedding(torch.where(block < last, block, last) + 1, WEIGHT) @ WEIGHT.t()


def decay(t: Tensor) -> Tensor:
    return torch.exp(-t[:, None] * torch.linspace(0, 1, 32)) @ WEIGHT[:32]


def power(t: Tensor) -> Tensor:
    return 0.99 ** (t[:, None] * torch.linspace(0, 1, 32)) @ WEIGHT[:32]


CASES: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Tensor, ...]]]] = {
    "timesteps": (timesteps, lambda: (torch.tensor([981.37, 17.2, 500.9]),)),
    "timesteps that are integers": (timesteps, lambda: (torch.tensor([981, 17, 501]),)),
    "timesteps on a scale of logarithms": (logarithmic_timesteps, lambda: (torch.rand(5) * 50 + 1,)),
    "rotary": (rotary, lambda: (torch.randn(1, 2, 9, 32), torch.arange(5001.0, 5010.0)[None])),
    "tables in float64": (
        turned_by_double_tables,
        lambda: (torch.randn(1, 2, 9, 32), torch.arange(5001.0, 5010.0)),
    ),
    "Fourier features": (fourier_features, lambda: (torch.rand(100, 2),)),
    "octaves": (octaves, lambda: (torch.rand(100, 3),)),
    "a threshold": (beyond_a_threshold, lambda: (torch.rand(32, 32) / 1000 + 0.9994, torch.randn(32, 32))),
    "a scaled threshold": (beyond_a_scaled_threshold, lambda: (torch.rand(32, 32) / 1000 + 0.999, torch.randn(32, 32))),
    "buckets": (buckets, lambda: (torch.rand(32),)),
    "searched": (searched, lambda: (torch.rand(32),)),
    "indices": (indices, lambda: (torch.rand(32),)),
    "neighbouring indices": (neighbouring_indices, lambda: (torch.rand(32),)),
    "places among pixels": (
        places_among_pixels,
        lambda: (torch.cat([torch.arange(255.0, 263.0)[:, None], torch.randn(8, 31)], 1),),
    ),
    "rounded": (rounded, lambda: (torch.rand(8, 32),)),
    "places in a grid": (places_in_a_grid, lambda: (torch.arange(90), torch.full((90,), 45))),
    "blocks of a text": (blocks_of_a_text, lambda: ((torch.arange(64) < 60).long()[None],)),
    "decay": (decay, lambda: (torch.rand(16) * 10 + 20,)),
    "power": (power, lambda: (torch.rand(16) * 1000,)),
}
WITHOUT_A_LOWERING = ("buckets", "searched")


@pytest.mark.parametrize("name", CASES)
def test_digits_that_count_are_not_rounded_away(name: str) -> None:
    function, inputs = CASES[name]
    (report,) = check(function, inputs)
    assert bool(report.fallbacks) == (name in WITHOUT_A_LOWERING)
    assert report.device_nodes  # what follows them


def test_a_table_of_a_long_text_is_made_on_the_host() -> None:
    check(rotary, lambda: (torch.randn(1, 1, 4096, 32), torch.arange(4096.0)[None] + 5001))


def on_host(function: Callable[..., Any], *inputs: Tensor, **options: Any) -> int:
    with torch.no_grad(), tt_dynamo.record() as reports:
        torch.compile(function, backend="ttnn", options=options)(*inputs)
    return reports[0].host_nodes


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.sin(x @ WEIGHT.t()) @ WEIGHT,
        lambda x: torch.exp(0.5 * torch.relu(x)) * 2,
        lambda x: torch.exp(x - x.amax(-1, keepdim=True)),
        lambda x: torch.sin(torch.relu(x)),
        lambda x: torch.where(x > 0.5, x, 0.0),
        lambda x: x * torch.sigmoid(1.7 * x),
    ],
    ids=["layer", "variance", "softmax", "activation", "representable threshold", "gate"],
)
def test_what_a_network_computes_stays_on_the_device(function) -> None:
    assert not on_host(function, torch.randn(4, 32))


def test_placement_on_the_device_is_obeyed() -> None:
    assert not on_host(octaves, torch.rand(100, 3), placement="device")
