"""Whichever way a mask takes to attention, its tile padding is filled, in the program or as it goes up."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compiled import compiled, random
from torch import nn

from tt_dynamo.passes import OPTIONAL

SDPA = "ttnn.transformer.scaled_dot_product_attention"
FILL = "ttnn.fill_implicit_tile_padding"
KEYS = 20  # no multiple of 32

attend = F.scaled_dot_product_attention


def filled(folder: Path) -> list[str]:
    """Where the program dumped there fills the padding of each mask: in a "call", or as a "weight" goes up."""
    text = (folder / "graph_0" / "program.py").read_text()
    masks = re.findall(rf"{SDPA}(?:_decode)?\(.*attn_mask=(?!None)(\w+)", text)
    return [_filled(text, mask) for mask in masks]


def _filled(text: str, mask: str) -> str:
    weight = re.search(rf"\('{mask}', (.*)\),$", text, re.MULTILINE)
    if weight:
        assert FILL in weight[1] and 'float("-inf")' in weight[1], f"the weight {mask} goes up as it is"
        return "weight"
    made = re.search(rf"^    {mask} = (.*)$", text, re.MULTILINE)
    assert made and made[1].startswith(FILL) and 'float("-inf")' in made[1], f"{mask} = {made and made[1]}"
    return "call"


def heads(queries: int = KEYS, keys: int = KEYS, dim: int = 32) -> tuple[torch.Tensor, ...]:
    return tuple(random(1, 2, size, dim) for size in (queries, keys, keys))


class Held(nn.Module):
    """A mask that is a buffer of the model."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.clone())  # torch takes that very tensor for static from then on

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attend(q, k, v, self.mask)


class Prompt(nn.Module):
    """A prompt that fills the first rows of a cache, whose first tokens all see each other: a mask with a prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(1, 2, 64, 32))
        self.register_buffer("values", torch.zeros(1, 2, 64, 32))

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(KEYS)
        self.keys.index_copy_(2, rows, k)
        self.values.index_copy_(2, rows, v)
        columns = torch.arange(64)
        mask = (columns <= rows[:, None]) | ((columns < 5) & (rows[:, None] < 5))
        return attend(q, self.keys, self.values, mask[None, None])


def literal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return attend(q, k, v, (torch.arange(KEYS) % 3 > 0)[None, None, None])


def spelled_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ k.mT * 32**-0.5 + mask, -1) @ v


def merged(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return attend(q, k, v, mask).transpose(1, 2).flatten(2)


def layers(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    for _ in range(3):
        q = attend(q, k, v, mask)
    return q


def literal_layers(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return literal(literal(q, k, v), k, v)


BIAS, ALLOWED = random(1, 1, KEYS, KEYS), torch.arange(KEYS)[None, None, None] % 3 > 0
ROUTES: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...], list[str]]] = {
    "additive": (attend, (*heads(), BIAS), ["call"]),
    "additive, one row": (attend, (*heads(), BIAS[:, :, :1]), ["call"]),
    "boolean": (attend, (*heads(), ALLOWED), ["call"]),
    "narrow heads": (attend, (*heads(dim=8), BIAS), ["call"]),
    "spelled out": (spelled_out, (*heads(), BIAS), ["call"]),
    "merged heads": (merged, (*heads(), BIAS), ["call"]),
    "of several layers": (layers, (*heads(), BIAS), ["call"] * 3),
    "literal": (literal, heads(), ["weight"]),
    "literal of several layers": (literal_layers, heads(), ["weight"] * 2),
    "buffer": (Held(BIAS), heads(), ["weight"]),
    "boolean buffer": (Held(ALLOWED), heads(), ["weight"]),
    "one token": (attend, (*heads(queries=1), BIAS[:, :, :1]), ["call"]),
}


@pytest.mark.parametrize("name", ROUTES)
def test_the_padding_of_a_mask_is_filled_once_for_all_that_read_it(name: str, tmp_path: Path) -> None:
    model, inputs, expected = ROUTES[name]
    got, report = compiled(model, *inputs, dump=str(tmp_path))
    assert not report.fallbacks
    assert filled(tmp_path) == expected
    assert report.launches.get(FILL, 0) == ("call" in expected)  # nothing for a weight, one for several layers
    torch.testing.assert_close(got, model(*inputs), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", ["additive", "buffer", "merged heads"])
@pytest.mark.parametrize("disabled", [("fuse_attention",), OPTIONAL], ids=["no masks shared", "no passes"])
def test_no_pass_is_needed_for_it(name: str, disabled: tuple[str, ...], tmp_path: Path) -> None:
    model, inputs, expected = ROUTES[name]
    _, report = compiled(model, *inputs, dump=str(tmp_path), disable_passes=disabled)
    assert not report.fallbacks
    assert filled(tmp_path) == expected


def test_the_mask_of_a_prompt_is_filled_where_it_is_cut(tmp_path: Path) -> None:
    model = Prompt()
    inputs = heads()
    got, _ = compiled(model, *inputs, dump=str(tmp_path))
    assert filled(tmp_path) == ["weight"]
    torch.testing.assert_close(got, Prompt()(*inputs), rtol=0.02, atol=0.02)
