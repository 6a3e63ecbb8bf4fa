"""What a board needs at least for one call of a language model, from the bytes and FLOPs of the call (a roofline).

    seconds = max(bytes / DRAM bandwidth, FLOPs / peak)

Source: Williams, Waterman & Patterson 2009, https://doi.org/10.1145/1498765.1498785

It is an estimate and a lower bound: activations that lie in DRAM, gaps between kernels, cores that a kernel leaves idle
and the host are not in it. Nothing here is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

from tt_dynamo.devices.boards import Board

LABEL = "estimate (roofline), not measured"

# Bytes of an element in DRAM. Block floats share an exponent byte among 16 elements.
BYTES = {"bfloat16": 2.0, "bfloat8_b": 1 + 1 / 16, "bfloat4_b": 0.5 + 1 / 16}
WIDEST = "bfloat16"

WeightDtype = str | Mapping[str, str]  # as the option `weight_dtype`


@dataclass(frozen=True)
class Cost:
    """Of one call: bytes of weights and of caches that cross DRAM's bus, and FLOPs of the products."""

    weight_bytes: float
    cache_bytes: float
    flops: float

    def seconds(self, board: Board, fidelity: str) -> float:
        return max(self.memory_seconds(board), self.flops / board.flops[fidelity])

    def memory_seconds(self, board: Board) -> float:
        return (self.weight_bytes + self.cache_bytes) / board.dram_bandwidth


def prefill(model: torch.nn.Module, batch: int, seq: int, weight_dtype: WeightDtype = WIDEST) -> Cost:
    """The cost of a prompt [batch, seq] with logits for its last position.

    Weights are read once. The cache is written, `seq` rows a sequence. A query attends to the keys up to its own
    position: seq (seq + 1) / 2 pairs.
    """
    pairs = seq * (seq + 1) / 2
    return _cost(model, batch, seq, pairs=pairs, rows=seq, weight_dtype=weight_dtype)


def decode(model: torch.nn.Module, batch: int, context: int, weight_dtype: WeightDtype = WIDEST) -> Cost:
    """The cost of one token of each of `batch` sequences that is the `context`-th of its own.

    Weights are read once, whatever the batch; of the cache, `context` rows a sequence.
    """
    return _cost(model, batch, 1, pairs=context, rows=context, weight_dtype=weight_dtype)


def _cost(model: torch.nn.Module, batch: int, seq: int, *, pairs: float, rows: int, weight_dtype: WeightDtype) -> Cost:
    """A linear layer costs 2 FLOPs an element and token; attention 2 products of 2 head_dim FLOPs a head and pair."""
    config: Any = model.config
    layers, heads, head_dim = config.num_hidden_layers, config.num_attention_heads, config.head_dim
    head = model.get_output_embeddings()  # type: ignore[operator]
    products = sum(
        2.0 * module.weight.numel() * batch * (1 if module is head else seq) for _, module in _linears(model)
    )
    attention = layers * 2 * 2.0 * heads * head_dim * batch * pairs
    cache = layers * 2 * batch * config.num_key_value_heads * rows * head_dim * BYTES[WIDEST]
    return Cost(weight_bytes(model, weight_dtype), cache, products + attention)


def weight_bytes(model: torch.nn.Module, weight_dtype: WeightDtype = WIDEST) -> float:
    """Bytes of the weights of every linear layer; norms are thousands of times smaller and tables read by the row."""
    return sum(module.weight.numel() * BYTES[_dtype(name, weight_dtype)] for name, module in _linears(model))


def _linears(model: torch.nn.Module) -> Sequence[tuple[str, torch.nn.Linear]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]


def _dtype(name: str, weight_dtype: WeightDtype) -> str:
    patterns = {"*": weight_dtype} if isinstance(weight_dtype, str) else weight_dtype
    return next((dtype for pattern, dtype in patterns.items() if fnmatchcase(name, pattern)), WIDEST)
