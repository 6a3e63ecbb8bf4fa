"""Heads that are normed and turned are split by the kernel that norms them; all others are split first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captured import Captured, Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.passes.attention.rotary import fuse_rotary
from tt_dynamo.passes.fuse.spelled_out import fuse_rms_norm
from tt_dynamo.passes.heads.norm_heads import fuse_norm_heads
from tt_dynamo.passes.heads.qkv import fuse_qkv
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.moves import normalize_moves

ROWS, HEADS, HEAD_DIM = 5, 2, 64
ANGLES = torch.linspace(0, 3, ROWS * HEAD_DIM // 2).reshape(ROWS, -1)


def turned(x: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of neighbours, x [batch, heads, rows, head_dim]."""
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    crossed = torch.stack([-imaginary, real], -1).flatten(3)
    cos, sin = (table.repeat_interleave(2, 1)[None, None] for table in (ANGLES.cos(), ANGLES.sin()))
    return x * cos + crossed * sin


def halves(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    cos, sin = (table.repeat(1, 2)[None, None] for table in (ANGLES.cos(), ANGLES.sin()))
    return x * cos + torch.cat((-second, first), -1) * sin


def attention(turn: Callable[..., Any] = turned, norm: bool = True, also: bool = False) -> Callable[..., Any]:
    def forward(self: Any, x: torch.Tensor) -> Any:
        q, k, v = (p(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (self.p0, self.p1, self.p2))
        normed = (self.p3(q), self.p4(k)) if norm else (q, k)
        y = F.scaled_dot_product_attention(*map(turn, normed), v)
        return (y, torch.exp(normed[0])) if also else y

    return forward


def fused(forward: Callable[..., Any], batch: int = 1) -> tuple[Captured, int]:
    torch.manual_seed(0)
    width = HEADS * HEAD_DIM
    members = *(nn.Linear(width, width) for _ in range(3)), *(nn.RMSNorm(HEAD_DIM) for _ in range(2))
    graph = capture(Module(*members, forward=forward), random(batch, ROWS, width))
    graph.apply(normalize_moves, canonicalize, fuse_rotary, fuse_rms_norm, fuse_qkv, exact=False)
    return graph, graph.apply(fuse_norm_heads, exact=False)


def test_query_and_key_are_normed_and_turned_as_they_are_split() -> None:
    graph, changed = fused(attention())
    assert changed == 1 and len(graph.calls(operators.norm_heads)) == 2
    assert not graph.calls(operators.split_heads, operators.rms_norm, operators.rotary_by_matrix)


OTHERS: dict[str, tuple[int, Callable[..., Any]]] = {
    "two images": (2, attention()),
    "no norm": (1, attention(norm=False)),
    "no rotary embedding": (1, attention(turn=lambda x: x * 2)),
    "halves of a head": (1, attention(turn=halves)),
    "another reader": (1, attention(also=True)),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_heads_are_split_first(case: str) -> None:
    batch, forward = OTHERS[case]
    graph, changed = fused(forward, batch)
    assert changed == 0 and graph.calls(operators.split_heads)
