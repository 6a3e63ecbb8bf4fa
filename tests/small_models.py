"""Models of a few operations, for tests of what surrounds them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


class Feedforward(torch.nn.Module):
    """A residual feedforward block. x [rows, 32] -> [rows, 32]."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(32, 64)
        self.down = torch.nn.Linear(64, 32)
        self.norm = torch.nn.LayerNorm(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x + self.down(F.gelu(self.up(x))))


def greedy_tokens(count: int, options: dict[str, Any]) -> torch.Tensor:
    """The tokens of a small Llama for two prompts of 8, whatever its options the same weights."""
    import transformers

    torch._dynamo.reset()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=200, max_position_embeddings=64, eos_token_id=None, bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    model.compile(backend="ttnn", options=options)
    ids = torch.randint(0, 200, (2, 8))
    settings = {"max_new_tokens": count, "do_sample": False, "cache_implementation": "static"}
    tokens: torch.Tensor = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    return tokens


class Weight(torch.nn.Module):
    """Holds a parameter and a buffer [4, 32]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4, 32))
        self.register_buffer("buffer", torch.zeros(4, 32))
        self.buffer: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) * self.weight


class Attention(torch.nn.Module):
    """One encoder block over token ids with a key padding mask: every way onto the device and off it.

    ids [batch, seq] int64, keep [batch, seq] bool -> [batch, seq, 64] and its mean over seq [batch, 64].
    """

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(10, 64)
        self.norm = torch.nn.LayerNorm(64)
        self.qkv = torch.nn.Linear(64, 192)
        self.out = torch.nn.Linear(64, 64)
        self.up = torch.nn.Linear(64, 128)
        self.down = torch.nn.Linear(128, 64)

    def forward(self, ids: torch.Tensor, keep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.embedding(ids)
        batch, seq, width = x.shape
        query, key, value = self.qkv(self.norm(x)).view(batch, seq, 3, 2, 32).permute(2, 0, 3, 1, 4)
        heads = F.scaled_dot_product_attention(query, key, value, keep[:, None, None, :])
        x = x + self.out(heads.transpose(1, 2).reshape(batch, seq, width))
        x = x + self.down(F.gelu(self.up(x)))
        return x, x.mean(1)


class Summed(torch.nn.Module):
    """Adds x to its sum, of the same shape, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sum", torch.zeros(32, 32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sum.add_(x)
        return self.sum * 2
