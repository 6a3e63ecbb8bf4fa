"""Rotary embedding against its definition: columns of a head turn in pairs, by the angle of their position."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

Upload = Callable[..., Any]
Random = Callable[..., torch.Tensor]


def tables(seq: int, head_dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [1, 1, seq, head_dim] of halves that turn together, in bfloat16's numbers."""
    angles = torch.arange(seq)[:, None] * 0.1 ** torch.arange(head_dim // 2)
    return tuple(f(torch.cat((angles, angles), -1))[None, None].bfloat16().float() for f in (torch.cos, torch.sin))


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, pairs: list[tuple[int, int]]) -> torch.Tensor:
    """(a, b) of each pair as (a cos - b sin, b cos + a sin)."""
    y = x * cos
    for a, b in pairs:
        y[..., a] -= x[..., b] * sin[..., a]
        y[..., b] += x[..., a] * sin[..., b]
    return y


@pytest.mark.parametrize("seq", [32, 50])
def test_halves_turn_together(emulated: Any, upload: Upload, random: Random, seq: int) -> None:
    x = random(2, 3, seq, 64)
    cos, sin = tables(seq, 64)
    result = emulated.experimental.rotary_embedding_hf(upload(x), upload(cos), upload(sin), is_decode_mode=False)
    expected = turned(x, cos, sin, [(i, i + 32) for i in range(32)])
    torch.testing.assert_close(emulated.to_torch(result).float(), expected, rtol=2**-7, atol=2**-7)


def test_neighbours_turn_together_by_a_matrix(emulated: Any, upload: Upload, random: Random) -> None:
    x = random(1, 3, 32, 64)
    cos, sin = tables(32, 64)
    matrix = torch.zeros(1, 1, 32, 32)
    for i in range(0, 32, 2):
        matrix[0, 0, i + 1, i], matrix[0, 0, i, i + 1] = -1, 1
    result = emulated.experimental.rotary_embedding_llama(
        upload(x), upload(cos), upload(sin), upload(matrix), is_decode_mode=False
    )
    expected = turned(x, cos, sin, [(i, i + 1) for i in range(0, 64, 2)])
    torch.testing.assert_close(emulated.to_torch(result).float(), expected, rtol=2**-7, atol=2**-7)
