"""The BERT encoder (transformers' BertModel) written directly in TTNN: eight kernel launches a layer.

Source: Devlin et al. 2018, https://arxiv.org/abs/1810.04805; op sequence after tt-metal's `metal_BERT_large_11`, with
scaled dot product attention in place of its two products, softmax and merging of heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .parts import Attention, LayerNorm, Linear, Setup

# Added to the score of a padding token. bfloat16 holds it, and a sum of two of them.
MASKED = -1e30


class Layer:
    """One post-norm encoder layer on [batch, 1, seq, hidden]."""

    def __init__(self, setup: Setup, state: Mapping[str, torch.Tensor], heads: int, epsilon: float):
        def linear(name: str, activation: str | None = None) -> Linear:
            return Linear(setup, state[f"{name}.weight"], state[f"{name}.bias"], activation=activation)

        def norm(name: str) -> LayerNorm:
            return LayerNorm(setup, state[f"{name}.weight"], state[f"{name}.bias"], epsilon)

        modules = {"query": "self.query", "key": "self.key", "value": "self.value", "output": "output.dense"}
        projections = {
            f"{name}.{kind}": state[f"attention.{module}.{kind}"]
            for name, module in modules.items()
            for kind in ("weight", "bias")
        }
        self.setup = setup
        self.attention = Attention(setup, projections, heads)
        self.attention_norm = norm("attention.output.LayerNorm")
        self.intermediate = linear("intermediate.dense", activation="gelu")
        self.output = linear("output.dense")
        self.output_norm = norm("output.LayerNorm")

    def __call__(self, x: Any, config: Any, mask: Any) -> Any:
        """Frees x."""
        free = self.setup.free
        attended = self.attention(x, config, mask)
        hidden = self.attention_norm(attended, residual=x)
        free(attended, x)
        wide = self.intermediate(hidden)
        narrow = self.output(wide)
        free(wide)
        result = self.output_norm(narrow, residual=hidden)
        free(narrow, hidden)
        return result


class Bert:
    """BertModel for one batch size and sequence length.

    state: the model's state dict. config: its transformers config (gelu, absolute positions).
    """

    def __init__(self, ttnn: Any, device: Any, state: Mapping[str, torch.Tensor], config: Any, *, batch: int, seq: int):
        setup = self.setup = Setup(ttnn, device)
        self.batch, self.seq = batch, seq
        heads, epsilon = config.num_attention_heads, config.layer_norm_eps
        self.words = setup.weight(state["embeddings.word_embeddings.weight"], tiled=False)
        self.types = setup.weight(state["embeddings.token_type_embeddings.weight"], tiled=False)
        self.positions = setup.weight(state["embeddings.position_embeddings.weight"][None, :seq])
        embedding_norm = (state["embeddings.LayerNorm.weight"], state["embeddings.LayerNorm.bias"])
        self.norm = LayerNorm(setup, *embedding_norm, epsilon)
        self.layers = [
            Layer(setup, _under(state, f"encoder.layer.{index}."), heads, epsilon)
            for index in range(config.num_hidden_layers)
        ]
        self.pooler = Linear(setup, state["pooler.dense.weight"], state["pooler.dense.bias"], activation="tanh")
        self.attention_config = setup.attention_config(batch, heads, seq)
        # Attention reads the mask's tile padding too (https://github.com/tenstorrent/tt-metal/issues/54833): the
        # padding of the constant is masked, and that of the uploaded mask counts as a padding token.
        self.masked = ttnn.from_torch(
            torch.full((1, 1, seq, seq), MASKED, dtype=torch.bfloat16),
            dtype=ttnn.bfloat16,
            layout=ttnn.TILE_LAYOUT,
            device=device,
            pad_value=MASKED,
        )
        self.is_padding = [ttnn.UnaryWithParam(ttnn.UnaryOpType.EQZ)]

    def __call__(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(last hidden state [batch, seq, hidden], pooled output [batch, hidden]), float32 as the model gives them.

        All inputs are int64 [batch, seq]; attention_mask is 1 for a token and 0 for padding.
        """
        ttnn, device = self.setup.ttnn, self.setup.device
        ids = ttnn.from_torch(input_ids.to(torch.int32), dtype=ttnn.uint32, device=device)
        types = ttnn.from_torch(token_type_ids.to(torch.int32), dtype=ttnn.uint32, device=device)
        tokens = ttnn.from_torch(
            attention_mask.view(self.batch, 1, 1, self.seq).to(torch.bfloat16),
            dtype=ttnn.bfloat16,
            layout=ttnn.TILE_LAYOUT,
            device=device,
        )
        hidden, pooled = self.forward(ids, tokens, types)
        results = ttnn.to_torch(hidden).float(), ttnn.to_torch(pooled).float()
        self.setup.free(hidden, pooled)
        return results[0].squeeze(1), results[1].view(self.batch, -1)

    def forward(self, ids: Any, tokens: Any, types: Any) -> tuple[Any, Any]:
        """Hidden states [batch, 1, seq, hidden] and pooled [batch, 1, 1, hidden] on the device; frees its inputs.

        ids, types: uint32 [batch, seq], row major. tokens: bfloat16 tiles [batch, 1, 1, seq], 1 for a token.
        """
        ttnn, free = self.setup.ttnn, self.setup.free
        mask = ttnn.multiply(tokens, self.masked, input_tensor_a_activations=self.is_padding)
        free(tokens)
        x = self.embed(ids, types)
        for layer in self.layers:
            x = layer(x, self.attention_config, mask)
        free(mask)
        first = ttnn.slice(x, [0, 0, 0, 0], [self.batch, 1, 1, x.shape[-1]])
        pooled = self.pooler(first)
        free(first)
        return x, pooled

    def embed(self, ids: Any, types: Any) -> Any:
        ttnn, free = self.setup.ttnn, self.setup.free
        words = ttnn.embedding(ids, self.words, layout=ttnn.TILE_LAYOUT)
        kinds = ttnn.embedding(types, self.types, layout=ttnn.TILE_LAYOUT)
        free(ids, types)
        placed = ttnn.add(words, self.positions)
        free(words)
        x = self.norm(placed, residual=kinds)
        free(placed, kinds)
        return ttnn.reshape(x, (self.batch, 1, self.seq, x.shape[-1]))


def _under(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
