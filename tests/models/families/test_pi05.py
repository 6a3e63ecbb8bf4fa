"""A model shaped as pi0.5: an expert whose norms take scale, shift and gate from the moment, ten steps on the device.

Unlike pi0, the robot's state is among the words of the prefix, and the moment reaches the expert by its norms alone.
Source: Physical Intelligence 2025, "pi0.5: a Vision-Language-Action Model with Open-World Generalization",
https://arxiv.org/abs/2504.16054. Layers are transformers'; nothing is trained.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comparison import pcc, relative_error
from decoders import enliven
from pi0 import ACTION_SIZE, HORIZON, STEPS, Pi0, PrefixCache, inputs, sine_cosine
from torch import nn
from torch.nn.functional import silu

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

WIDTH = 64


class AdaptiveNorm(nn.Module):
    """An RMS norm of x [batch, seq, WIDTH] with scale and shift of a moment [batch, WIDTH], and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: torch.Tensor, moment: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale, shift, gate = self.dense(moment)[:, None].chunk(3, -1)
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)
        return (normed * (1 + scale.float()) + shift.float()).to(x.dtype), gate.to(x.dtype)


class Pi05(Pi0):
    """Actions [batch, HORIZON, ACTION_SIZE] from images, words and noise, in `steps`."""

    def __init__(self, steps: int = STEPS) -> None:
        super().__init__(steps)
        self.time_in = nn.Linear(WIDTH, WIDTH)
        self.norms = nn.ModuleList(AdaptiveNorm() for _ in range(2 * len(self.expert.layers) + 1))

    def forward(self, images: torch.Tensor, words: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """images [batch, cameras, 3, 56, 56], words [batch, seq] int64, noise as the actions."""
        cache = self.prefix(images, words)
        actions = noise
        for step in range(self.steps):
            actions = actions - self.flow(cache, actions, 1 - step / self.steps) / self.steps
        return actions

    def flow(self, cache: PrefixCache, actions: torch.Tensor, time: float) -> torch.Tensor:
        """Where the actions move at `time`; all of them attend to the prefix and to each other."""
        moment = sine_cosine(time, WIDTH).expand(len(actions), -1)
        moment = silu(self.time_out(silu(self.time_in(moment))))
        x, start = self.action_in(actions), cache.keys[0].shape[2]
        positions = torch.arange(start, start + HORIZON)[None]
        mask = torch.ones(1, 1, HORIZON, start + HORIZON, dtype=torch.bool)
        common: dict[str, Any] = {"attention_mask": mask, "position_ids": positions, "past_key_values": cache}
        common["position_embeddings"] = self.expert.rotary_emb(x, positions)
        for number, layer in enumerate(self.expert.layers):
            normed, gate = self.norms[2 * number](x, moment)
            x = x + layer.self_attn(hidden_states=normed, **common)[0] * gate
            normed, gate = self.norms[2 * number + 1](x, moment)
            x = x + layer.mlp(normed) * gate
        return self.action_out(self.norms[-1](x, moment)[0])


@pytest.mark.parametrize("steps", [2, pytest.param(STEPS, marks=pytest.mark.slow)])
@torch.no_grad()
def test_actions_are_eager_s_and_nothing_falls_back(steps: int) -> None:
    torch.manual_seed(0)
    model = enliven(Pi05(steps)).eval()
    images, words, _, noise = inputs(1)
    eager = model(images, words, noise)
    with tt_dynamo.record() as reports:
        ours = torch.compile(model, backend="ttnn")(images, words, noise)
    assert ours.shape == (1, HORIZON, ACTION_SIZE) and ours.dtype == eager.dtype
    assert pcc(ours - noise, eager - noise) >= 0.99, "what the steps add to the noise"
    assert relative_error(ours, eager) <= 0.05
    (report,) = reports
    assert report.fallbacks == []


@torch.no_grad()
def test_the_moment_is_heard() -> None:
    """What the first test compares would be wrong by far if the norms did not read it."""
    torch.manual_seed(0)
    model = enliven(Pi05()).eval()
    images, words, _, noise = inputs(1)
    cache = model.prefix(images, words)
    late, early = (model.flow(cache, noise, time) for time in (0.1, 0.9))
    assert relative_error(late, early) > 0.1
