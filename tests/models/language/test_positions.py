"""Positions that a caller chooses, wherever they lie: eager's logits, or eager's error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comparison import pcc
from decoders import build, static_cache, tokens

from tt_dynamo.ir.errors import FallbackError

pytestmark = pytest.mark.usefixtures("board_device", "clean_dynamo")

PROMPT = 8
LENGTH = 16


@torch.no_grad()
def logits(model: Any, compiled: Any, shifts: list[int]) -> list[torch.Tensor]:
    """Of a prompt and two steps, the last of which fills the cache; each user's positions are shifted by as much."""
    ids, cache = tokens(len(shifts), LENGTH), static_cache(model, LENGTH)
    results = []
    for start, end in ((0, PROMPT), (PROMPT, PROMPT + 1), (LENGTH - 1, LENGTH)):
        positions = torch.arange(start, end) + torch.tensor(shifts)[:, None]
        given = {"input_ids": ids[:, start:end], "position_ids": positions, "past_key_values": cache}
        results.append(compiled(**given, use_cache=True).logits)
    return results


# and whether tables have them all: eager torch computes the calls of the others
SHIFTS = {
    "counted from one, and past the end of the cache": ([[1, 1], [100, 3]], True),
    "left padding, counted from below zero": ([[0, -3]], False),
    "past every table": ([[1 << 20, 3]], False),
}


def compiled(model: Any) -> Any:
    return torch.compile(model, backend="ttnn")


@pytest.mark.parametrize(("shifts", "tables_have_them"), SHIFTS.values(), ids=SHIFTS)
def test_rotary_embedding_has_a_value_for_every_position(
    shifts: list[list[int]], tables_have_them: bool, warnings_logged: Any
) -> None:
    model = build("llama", layers=1)
    ours = compiled(model)
    for shift in shifts:
        for mine, theirs in zip(logits(model, ours, shift), logits(model, model, shift), strict=True):
            assert (mine.shape, mine.stride()) == (theirs.shape, theirs.stride())
            assert pcc(mine, theirs) >= 0.99
    assert bool(warnings_logged()) is not tables_have_them


@pytest.mark.parametrize("shifts", [[0, -3], [1 << 20, 3]], ids=str)
def test_learned_positions_end_as_in_eager_torch(shifts: list[int]) -> None:
    model = build("gpt2", layers=1)
    for call in (model, compiled(model)):
        with pytest.raises(IndexError):
            logits(model, call, shifts)


def test_where_fallbacks_are_forbidden_a_position_past_every_table_is_an_error() -> None:
    model = build("llama", layers=1)
    strict = torch.compile(model, backend="ttnn", options={"fallback": "error"})
    with pytest.raises(FallbackError, match="integers from"):
        logits(model, strict, [1 << 20])
