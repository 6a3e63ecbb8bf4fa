"""Greedy decoding of logits that stay on the device: the place of the largest comes down, 4 bytes of each sequence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import greedy_tokens

from tt_dynamo.runtime.caches import DeviceTensor

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def logits_of(values: torch.Tensor) -> torch.Tensor:
    """`values`, which are not negative, as a model leaves them on the device."""
    logits: torch.Tensor = torch.compile(torch.nn.ReLU(), backend="ttnn", options={"outputs": "device"})(values)
    assert type(logits) is DeviceTensor
    return logits


def last_row(logits: torch.Tensor) -> torch.Tensor:
    """As `generate()` takes it."""
    return logits[:, -1].to(copy=True, dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [50, 1000])
@torch.no_grad()
def test_the_first_of_many_equal_logits_is_taken(vocabulary: int, dtype: torch.dtype, downloads: Any) -> None:
    values = torch.randint(0, 4, (3, 1, vocabulary)).to(dtype)
    logits = logits_of(values)
    assert torch.equal(torch.argmax(last_row(logits), dim=-1), torch.argmax(last_row(values), dim=-1))
    assert torch.equal(logits.argmax(-1, keepdim=True), values.argmax(-1, keepdim=True))
    assert downloads == [(3, 1), (3, 1)]
    assert torch.equal(logits.argmax(), logits.clone().argmax())  # of all elements: by torch


@torch.no_grad()
def test_nan_is_the_largest_as_in_torch() -> None:
    values = torch.rand(2, 1, 64)
    values[1, 0, 40] = torch.nan
    logits = logits_of(values)
    assert last_row(logits).argmax(-1).tolist() == [last_row(logits.clone())[0].argmax().item(), 40]


@torch.no_grad()
def test_several_rows_and_other_readers_fetch(downloads: Any) -> None:
    values = torch.randint(0, 9, (2, 5, 64)).float()
    logits = logits_of(values)
    scores = last_row(logits)
    assert torch.equal(scores.argmax(-1), values[:, -1].argmax(-1))
    assert torch.equal(last_row(logits_of(values[:, :1])) / 0.5, values[:, 0] / 0.5)  # as a logits processor does
    assert downloads == [(2, 5, 64), (2, 1, 64)]


@torch.no_grad()
def test_a_copy_keeps_what_it_was_made_of() -> None:
    values = torch.randint(0, 9, (2, 1, 64)).float()
    logits = logits_of(values)
    scores = last_row(logits)
    logits.zero_()
    assert torch.equal(scores.argmax(-1), values[:, 0].argmax(-1))
    assert not logits.any() and torch.equal(logits.argmax(-1), torch.zeros(2, 1, dtype=torch.int64))
    scores[0, 5] = 100
    assert scores.argmax(-1)[0] == 5


@torch.no_grad()
def test_a_program_that_writes_in_place_leaves_the_copy_alone() -> None:
    def write(cache: torch.Tensor, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        cache.index_copy_(2, position, row)
        return row * 2

    values = torch.rand(1, 2, 32, 32).bfloat16().float()
    cache = logits_of(values)
    copied = cache.to(copy=True, dtype=torch.float32)
    torch.compile(write, backend="ttnn")(cache, torch.full((1, 2, 1, 32), 7.0), torch.tensor([3]))
    assert (cache[0, :, 3] == 7).all()
    assert torch.equal(copied, values)


@torch.no_grad()
def test_what_the_device_refuses_torch_answers(board_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randint(0, 9, (2, 1, 64)).float()
    logits = logits_of(values)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no argmax today")

    monkeypatch.setattr(board_device.namespace(), "argmax", fail)
    assert torch.equal(last_row(logits).argmax(-1), values[:, 0].argmax(-1))
    with pytest.raises(IndexError):
        logits.argmax(5)


@torch.no_grad()
def test_generate_brings_tokens_down(downloads: Any) -> None:
    pytest.importorskip("transformers")
    tokens = []
    for options in ({}, {"outputs": "device"}):
        downloads.clear()
        tokens.append(greedy_tokens(4, options))
    assert torch.equal(*tokens)
    assert downloads == [(2, 1)] * 4
