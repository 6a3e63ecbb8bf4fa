"""A model shaped as pi0 at reduced size: SigLIP and Gemma read the scene, a smaller Gemma turns noise into actions.

The prefix (images, then the instruction) goes once through the language model, whose keys and values stay. The action
expert has layers of its own with the same heads; its tokens (the robot's state, then noisy actions) attend to the
prefix and to each other, ten times unless told otherwise, each time a step of Euler's method along the velocity that
it predicts.

Source: Black et al. 2024, "pi0: A Vision-Language-Action Flow Model for General Robot Control",
https://arxiv.org/abs/2410.24164. Layers are transformers'; nothing is trained.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

STEPS = 10
HORIZON = 8  # actions that are planned at once
ACTION_SIZE = 24
STATE_SIZE = 14
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 32, "num_hidden_layers": 2}


class PrefixCache:
    """Keys and values of the prefix, layer by layer; the expert's are put behind them and not kept."""

    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.filled = False

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """keys, values [batch, kv_heads, seq, head_dim] -> those of the prefix and these."""
        if not self.filled:
            self.keys.append(keys)
            self.values.append(values)
            return keys, values
        return torch.cat([self.keys[layer], keys], 2), torch.cat([self.values[layer], values], 2)


class Pi0(nn.Module):
    """Actions [batch, HORIZON, ACTION_SIZE] from images, an instruction, the robot's state and noise, in `steps`."""

    def __init__(self, steps: int = STEPS) -> None:
        super().__init__()
        self.steps = steps
        from transformers import GemmaConfig, GemmaModel, SiglipVisionConfig, SiglipVisionModel

        self.vision = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=144, intermediate_size=288, num_hidden_layers=2, num_attention_heads=2, image_size=56,
                patch_size=14, vision_use_head=False,
            )
        )  # fmt: skip
        common = {**HEADS, "vocab_size": 320, "pad_token_id": 0, "max_position_embeddings": 128}
        self.language = GemmaModel(GemmaConfig(**common, hidden_size=128, intermediate_size=256))
        self.expert = GemmaModel(GemmaConfig(**common, hidden_size=64, intermediate_size=128))
        self.projector = nn.Linear(144, 128)
        self.state_in = nn.Linear(STATE_SIZE, 64)
        self.action_in = nn.Linear(ACTION_SIZE, 64)
        self.time_in = nn.Linear(128, 64)
        self.time_out = nn.Linear(64, 64)
        self.action_out = nn.Linear(64, ACTION_SIZE)

    def forward(
        self, images: torch.Tensor, instruction: torch.Tensor, state: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """images [batch, cameras, 3, 56, 56], instruction [batch, seq] int64, state [batch, STATE_SIZE], noise as the
        actions."""
        cache = self.prefix(images, instruction)
        actions = noise
        for step in range(self.steps):
            actions = actions - self.velocity(cache, state, actions, 1 - step / self.steps) / self.steps
        return actions

    def prefix(self, images: torch.Tensor, instruction: torch.Tensor) -> PrefixCache:
        """Keys and values of all image patches and words; each attends to all others."""
        batch, cameras = images.shape[:2]
        patches = self.projector(self.vision(images.flatten(0, 1)).last_hidden_state)
        words = self.language.embed_tokens(instruction)
        tokens = torch.cat([patches.reshape(batch, -1, patches.shape[-1]), words], 1)
        cache = PrefixCache()
        self.layers(self.language, tokens, cache, 0, None)
        cache.filled = True
        return cache

    def velocity(self, cache: PrefixCache, state: torch.Tensor, actions: torch.Tensor, time: float) -> torch.Tensor:
        """Where the actions [batch, HORIZON, ACTION_SIZE] move at `time`, 1.0 for noise and 0.0 for actions."""
        moment = sine_cosine(time, 64).expand(*actions.shape[:2], -1)
        timed = self.time_in(torch.cat([self.action_in(actions), moment], -1))
        timed = self.time_out(nn.functional.silu(timed))
        tokens = torch.cat([self.state_in(state)[:, None], timed], 1)
        start = cache.keys[0].shape[2]
        # The state does not see the actions; they see it, the prefix and each other.
        mask = torch.ones(1, 1, tokens.shape[1], start + tokens.shape[1], dtype=torch.bool)
        mask[..., 0, start + 1 :] = False
        return self.action_out(self.layers(self.expert, tokens, cache, start, mask)[:, 1:])

    def layers(
        self, model: Any, tokens: torch.Tensor, cache: PrefixCache, start: int, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """The layers and last norm of a Gemma on tokens [batch, seq, hidden] at positions from `start` on."""
        positions = torch.arange(start, start + tokens.shape[1])[None]
        if mask is None:
            mask = torch.ones(1, 1, tokens.shape[1], tokens.shape[1], dtype=torch.bool)
        embedded = model.rotary_emb(tokens, positions)
        for layer in model.layers:
            tokens = layer(
                tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, position_embeddings=embedded
            )
        return model.norm(tokens)


def sine_cosine(time: float, size: int) -> torch.Tensor:
    """Embedding [size] of a moment between 0 and 1, of periods from 0.004 to 4."""
    periods = 0.004 * 1000 ** torch.linspace(0, 1, size // 2)
    angles = 2 * math.pi * time / periods
    return torch.cat([angles.sin(), angles.cos()])


def inputs(batch: int, cameras: int = 2) -> tuple[torch.Tensor, ...]:
    """images, instruction, state and noise, seeded."""
    generator = torch.Generator().manual_seed(batch)
    return (
        torch.randn(batch, cameras, 3, 56, 56, generator=generator),
        torch.randint(2, 320, (batch, 16), generator=generator),
        torch.randn(batch, STATE_SIZE, generator=generator),
        torch.randn(batch, HORIZON, ACTION_SIZE, generator=generator),
    )
