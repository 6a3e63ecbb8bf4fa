"""Rotary position embedding: of halves of each head, or of neighbouring columns."""

from collections.abc import Callable
from typing import Any

import torch
from compiled import random

from .row import Row

HF, LLAMA = "experimental.rotary_embedding_hf", "experimental.rotary_embedding_llama"


def halves(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), dim=-1)


def neighbours(x: torch.Tensor) -> torch.Tensor:
    return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)


def _turned(rotate: Callable[..., torch.Tensor], turning: int) -> Callable[..., torch.Tensor]:
    def forward(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        part, passed = x[..., :turning], x[..., turning:]
        out = part * cos.unsqueeze(1) + rotate(part) * sin.unsqueeze(1)
        return torch.cat((out, passed), dim=-1) if passed.shape[-1] else out

    return forward


def _row(
    calls: str, rotate: Any, width: int, turning: int | None = None, seq: int = 7, batch: int = 1, tables: int = 1
) -> Row:
    """Heads of this width, of which the first columns turn, by tables for each of a batch or for all."""
    turning = width if turning is None else turning
    name = f"rotary: {rotate.__name__}, {turning} of {width} columns, {seq} positions, {tables} tables for {batch}"
    inputs = random(batch, 3, seq, width), random(tables, seq, turning), random(tables, seq, turning, mean=1.0)
    return Row(name, _turned(rotate, turning), inputs, calls, roundings=3, cancels=True)


ROWS = [
    _row(HF, halves, 32, seq=32, batch=2),
    _row(HF, halves, 64, seq=7, batch=2),
    _row(HF, halves, 128, seq=33, batch=2),
    *(_row(LLAMA, neighbours, width) for width in (64, 80, 256)),
    # heads smaller than a tile
    _row(LLAMA, halves, 16),
    # halves that end inside a tile
    _row("matmul multiply multiply add", halves, 96),
    # tables of whole heads
    _row(f"pad reshape pad reshape {LLAMA}", halves, 64, turning=16),
    # one long sequence
    _row(f"permute reshape reshape reshape {HF} reshape permute", halves, 64, batch=2, tables=2),
]
