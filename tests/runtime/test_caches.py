"""Caches that live on the device: what fetches them, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers

from tt_dynamo.runtime.caches import Copy, DeviceTensor

PROMPT = 32


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[Copy]:
    """The copies that were brought to the host."""
    seen: list[Copy] = []
    fetch = Copy.fetch

    def counting(copy: Copy) -> None:
        if copy.newer:
            seen.append(copy)
        fetch(copy)

    monkeypatch.setattr(Copy, "fetch", counting)
    return seen


@pytest.fixture
def decoder(board_device: Any, clean_dynamo: Any) -> Iterator[Any]:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1,
    )  # fmt: skip
    with torch.no_grad():
        yield transformers.LlamaForCausalLM(config).eval()


def keys_after(decoder: Any, steps: range) -> Any:
    """The keys of a new cache, and a function that decodes one more token, given its position."""
    cache = transformers.StaticCache(config=decoder.config, max_cache_len=64)
    ids = torch.arange(64)[None]

    def step(position: int) -> None:
        decoder(input_ids=ids[:, position : position + 1], past_key_values=cache)

    decoder(input_ids=ids[:, :PROMPT], past_key_values=cache)
    for position in steps:
        step(position)
    return cache.layers[0].keys, step


def test_a_step_fetches_nothing(decoder: Any, fetched: list[Copy]) -> None:
    keys, _ = keys_after(torch.compile(decoder, backend="ttnn"), range(32, 36))
    assert isinstance(keys, DeviceTensor)
    assert not fetched
    expected, _ = keys_after(decoder, range(32, 36))
    torch.testing.assert_close(keys.plain(), expected, atol=0.02, rtol=0.02)
    assert len(fetched) == 1


def test_a_program_of_another_backend_gets_what_the_device_has(decoder: Any, fetched: list[Copy]) -> None:
    keys, step = keys_after(torch.compile(decoder, backend="ttnn"), range(32, 34))
    rows = torch.compile(lambda keys: keys[0, 0].abs().amax(-1), backend="aot_eager")
    assert rows(keys).count_nonzero() == 34
    assert len(fetched) == 1
    step(34)
    assert rows(keys).count_nonzero() == 35
    assert len(fetched) == 2
