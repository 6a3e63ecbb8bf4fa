"""The ViT encoder (transformers' ViTForImageClassification) written directly in TTNN: ten kernel launches a layer.

Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929; op sequence after tt-metal's SigLIP block, which is
the same pre-norm layer, with attention merging its heads itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .parts import TILE, Attention, LayerNorm, Linear, Setup


class PatchEmbedding:
    """Pixels [batch, channels, height, width] → tokens [batch, 1, 1 + patches, hidden], in six kernel launches.

    The image goes up as rows of one patch's width, which is the same memory seen another way: `fold` then gathers
    patches with no permutation to channels last, and the channels of a patch lie next to each other as heads do. The
    class token is a row of zeros in front of the patches, to which the position embedding adds its value.
    """

    def __init__(self, setup: Setup, state: Mapping[str, torch.Tensor], batch: int):
        weight, bias = (state[f"patch_embeddings.projection.{kind}"] for kind in ("weight", "bias"))
        hidden, self.channels, self.patch, patch_width = weight.shape
        if self.patch != patch_width or self.patch**2 % TILE:
            raise ValueError(f"needs square patches of a multiple of {TILE} pixels, not {self.patch} by {patch_width}")
        self.setup = setup
        self.batch = batch
        self.linear = Linear(setup, weight.reshape(hidden, -1))
        positions = state["position_embeddings"].clone()
        self.seq = positions.shape[1]
        positions[:, :1] += state["cls_token"]
        positions[:, 1:] += bias
        self.positions = setup.weight(positions[None])

    def upload(self, pixels: torch.Tensor) -> Any:
        ttnn, width = self.setup.ttnn, pixels.shape[-1]
        rows = pixels.view(self.batch * self.channels, -1, width // self.patch, self.patch).to(torch.bfloat16)
        return ttnn.from_torch(rows, dtype=ttnn.bfloat16, layout=ttnn.ROW_MAJOR_LAYOUT, device=self.setup.device)

    def __call__(self, rows: Any) -> Any:
        """Frees `rows`, which are [batch * channels, height, width / patch, patch]."""
        ttnn, free = self.setup.ttnn, self.setup.free
        folded = ttnn.fold(rows, self.patch, 1)
        free(rows)
        channels = ttnn.reshape(folded, (self.batch, self.channels, self.seq - 1, self.patch**2))
        padded = ttnn.pad(channels, [(0, 0), (0, 0), (1, 0), (0, 0)], 0.0)
        del channels  # a view of what is freed next
        free(folded)
        tiles = ttnn.to_layout(padded, ttnn.TILE_LAYOUT)
        free(padded)
        patches = ttnn.experimental.nlp_concat_heads(tiles)
        free(tiles)
        tokens = self.linear(patches)
        free(patches)
        x = ttnn.add(tokens, self.positions)
        free(tokens)
        return x


class Layer:
    """One pre-norm encoder layer on [batch, 1, seq, hidden]."""

    def __init__(self, setup: Setup, state: Mapping[str, torch.Tensor], heads: int, epsilon: float):
        def linear(name: str, activation: str | None = None) -> Linear:
            return Linear(setup, state[f"{name}.weight"], state[f"{name}.bias"], activation=activation)

        def norm(name: str) -> LayerNorm:
            return LayerNorm(setup, state[f"{name}.weight"], state[f"{name}.bias"], epsilon)

        modules = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
        projections = {
            f"{name}.{kind}": state[f"attention.{module}.{kind}"]
            for name, module in modules.items()
            for kind in ("weight", "bias")
        }
        self.setup = setup
        self.before = norm("layernorm_before")
        self.attention = Attention(setup, projections, heads)
        self.after = norm("layernorm_after")
        self.up = linear("mlp.fc1", activation="gelu")
        self.down = linear("mlp.fc2")

    def __call__(self, x: Any, config: Any) -> Any:
        """Frees x."""
        ttnn, free = self.setup.ttnn, self.setup.free
        normed = self.before(x)
        attended = self.attention(normed, config)
        free(normed)
        hidden = ttnn.add(attended, x)
        free(attended, x)
        normed = self.after(hidden)
        wide = self.up(normed)
        free(normed)
        narrow = self.down(wide)
        free(wide)
        result = ttnn.add(narrow, hidden)
        free(narrow, hidden)
        return result


class Vit:
    """ViTForImageClassification for one batch size.

    state: the model's state dict. config: its transformers config (gelu, square patches).
    """

    def __init__(self, ttnn: Any, device: Any, state: Mapping[str, torch.Tensor], config: Any, *, batch: int):
        setup = self.setup = Setup(ttnn, device)
        self.batch = batch
        heads, epsilon = config.num_attention_heads, config.layer_norm_eps
        self.embed = PatchEmbedding(setup, _under(state, "vit.embeddings."), batch)
        self.layers = [
            Layer(setup, _under(state, f"vit.layers.{index}."), heads, epsilon)
            for index in range(config.num_hidden_layers)
        ]
        self.norm = LayerNorm(setup, state["vit.layernorm.weight"], state["vit.layernorm.bias"], epsilon)
        self.classifier = Linear(setup, state["classifier.weight"], state["classifier.bias"])
        self.attention_config = setup.attention_config(batch, heads, self.embed.seq)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits [batch, labels], float32 as the model's, of contiguous pixels [batch, channels, height, width]."""
        logits = self.forward(self.embed.upload(pixels))
        result = self.setup.ttnn.to_torch(logits).float()
        self.setup.free(logits)
        return result.view(self.batch, -1)

    def forward(self, rows: Any) -> Any:
        """Logits [batch, 1, 1, labels] on the device, of what `PatchEmbedding.upload` gives; frees it."""
        free = self.setup.free
        x = self.embed(rows)
        for layer in self.layers:
            x = layer(x, self.attention_config)
        # Only the class token is read, and the norm is by token.
        first = self.setup.ttnn.slice(x, [0, 0, 0, 0], [self.batch, 1, 1, x.shape[-1]])
        free(x)
        normed = self.norm(first)
        free(first)
        logits = self.classifier(normed)
        free(normed)
        return logits


def _under(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
