"""Prompts of several lengths share the program of a bucket, where padding cannot change what they give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import assert_same

import tt_dynamo

pytestmark = pytest.mark.usefixtures("board_device", "clean_dynamo")

Parts = dict[str, torch.Tensor]
LENGTHS = (9, 20, 32)
WIDTH = 64


class Reader(torch.nn.Module):
    """Embeds token ids [batch, length] and hands `read` the rows [batch, length, WIDTH] and some weights."""

    def __init__(self, read: Callable[..., Any]) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(50, WIDTH)
        self.linear = torch.nn.Linear(WIDTH, WIDTH)
        self.positions = torch.nn.Embedding(40, WIDTH)
        self.convolution = torch.nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.read = read

    def forward(self, ids: torch.Tensor, *others: torch.Tensor) -> Any:
        return self.read(self, self.embedding(ids), ids, *others)


def heads(x: torch.Tensor) -> torch.Tensor:
    return x.view(*x.shape[:2], 2, WIDTH // 2).transpose(1, 2)


def causal(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    q, k, v = heads(model.linear(x)), heads(x), heads(x * 0.5)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2) + x


def both_ways(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(heads(model.linear(x)), heads(x), heads(x * 0.5))


def masked(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """A mask of padding in front, as a batch of prompts has it, and of what comes later."""
    places = torch.arange(ids.shape[1])
    mask = (places <= places[:, None]) & (ids > 4)[:, None, None, :] | (places == places[:, None])
    return F.scaled_dot_product_attention(heads(x), heads(model.linear(x)), heads(x), mask)


def windowed(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Rows of padding would read none of the prompt's; twice, so that what the first makes of them is read."""
    places = torch.arange(ids.shape[1])
    mask = (places <= places[:, None]) & (places > places[:, None] - 3) & (ids >= 0)[:, None, None, :]
    for _ in range(2):
        x = F.scaled_dot_product_attention(heads(x), heads(x), heads(x), mask).transpose(1, 2).flatten(2)
    return x


def biased(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    places = torch.arange(ids.shape[1])
    distances = (places - places[:, None]).abs() * -0.1
    return F.scaled_dot_product_attention(heads(x), heads(x), heads(x), distances[None, None])


def last_row(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return model.linear(x[:, -1])


def last_rows(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return model.linear(x[:, -3:]) + x[:, :3]


def positions(model: Reader, x: torch.Tensor, ids: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """From 20 on: padding counts past the table."""
    return x + model.positions(torch.arange(ids.shape[1]) + start)


def summed_positions(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return x + model.positions((ids > 4).cumsum(1) - (ids > 4).long())


def flattened(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(model.linear(x.reshape(-1, WIDTH)), [WIDTH]).view(x.shape)


def counted(model: Reader, x: torch.Tensor, ids: torch.Tensor, count: torch.Tensor) -> Any:
    return x + 1, count + ids.shape[1], ids.shape[1] + 1


KEEPING: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    **{read.__name__: (read, ()) for read in (causal, both_ways, masked, windowed, last_row, last_rows)},
    **{read.__name__: (read, ()) for read in (summed_positions, flattened, biased)},
    "positions": (positions, (torch.tensor(8),)),
    "counted": (counted, (torch.tensor(3),)),
}


def mean(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return model.linear(x.mean(1))


def maximum(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return model.linear(x).amax(1)


def backwards(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return model.linear(x.flip(1))


def spelled_out(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x @ model.linear(x).transpose(1, 2), -1) @ x


def between_neighbours(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return model.convolution(x.transpose(1, 2))


def share(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return model.linear(x) / ids.shape[1]


def halves(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return model.linear(x[:, : ids.shape[1] // 2])


def turned(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).reshape(x.shape) + model.linear(x)


def normalized(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[1:])


def all_sums(model: Reader, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, WIDTH).cumsum(0)


MIXING = (mean, maximum, backwards, spelled_out, between_neighbours, share, halves, turned, normalized, all_sums)


def prompts(lengths: tuple[int, ...], batch: int = 2) -> list[torch.Tensor]:
    return [torch.randint(0, 50, (batch, length), generator=torch.Generator().manual_seed(7)) for length in lengths]


def reports_of(read: Callable[..., Any], others: tuple[torch.Tensor, ...] = (), buckets: Any = "auto") -> list[Any]:
    """Of prompts of all lengths, each of which gives what eager torch gives."""
    torch.manual_seed(0)
    model = Reader(read).eval()
    options = {"prompt_buckets": buckets, "warn_after_shapes": 8}
    compiled = torch.compile(model, backend="ttnn", dynamic=True, options=options)
    with tt_dynamo.record() as reports, torch.no_grad():
        for ids in prompts(LENGTHS):
            assert_same(compiled(ids, *others), model(ids, *others))
    return reports


@pytest.mark.parametrize("read, others", KEEPING.values(), ids=KEEPING)
def test_prompts_of_several_lengths_run_one_program(read: Callable[..., Any], others: tuple[torch.Tensor, ...]) -> None:
    (report,) = reports_of(read, others)
    assert "prompt_buckets: for prompts of up to 32 tokens, padded at the end" in report.notes
    assert not report.fallbacks


@pytest.mark.parametrize("read", MIXING)
def test_what_padding_would_change_is_compiled_for_each_length(read: Callable[..., Any]) -> None:
    reports = reports_of(read)
    assert len(reports) == len(LENGTHS)
    assert all(any("compiled for one length, since" in note for note in report.notes) for report in reports)


def test_a_prompt_longer_than_the_largest_bucket_is_said_once(warnings_logged: Any) -> None:
    torch.manual_seed(0)
    model = Reader(causal).eval()
    options = {"prompt_buckets": [32, 64], "warn_after_shapes": 8}
    compiled = torch.compile(model, backend="ttnn", dynamic=True, options=options)
    with tt_dynamo.record() as reports, torch.no_grad():
        for ids in prompts((40, 71, 64, 71, 3)):
            assert_same(compiled(ids), model(ids))
    assert len(reports) == 3
    (warning,) = warnings_logged()
    assert "a prompt of 71 tokens is longer than the largest bucket" in warning


def test_a_prompt_shorter_than_what_is_read_of_it_is_compiled_for_its_length() -> None:
    torch.manual_seed(0)
    model = Reader(lambda model, x, ids: model.linear(x[:, -5:])).eval()
    compiled = torch.compile(model, backend="ttnn", dynamic=True, options={"prompt_buckets": "auto"})
    with tt_dynamo.record() as reports, torch.no_grad():
        for ids in prompts((3, 5, 12)):
            assert_same(compiled(ids), model(ids))
    assert "prompt_buckets: compiled for one length, since a bucket is for 5 to 32 tokens" in reports[1].notes


def test_an_input_that_is_written_into_is_the_callers() -> None:
    """Of a padded copy the caller would see nothing."""

    def write(model: Reader, x: torch.Tensor, ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        counts.add_(1)
        return x + counts[..., None]

    torch.manual_seed(0)
    model = Reader(write).eval()
    compiled = torch.compile(model, backend="ttnn", dynamic=True, options={"prompt_buckets": "auto"})
    with torch.no_grad():
        for ids in prompts((9, 12)):
            counts, others = torch.zeros(ids.shape), torch.zeros(ids.shape)
            assert_same(compiled(ids, counts), model(ids, others))
            assert torch.equal(counts, others)


def test_ids_outside_the_table_raise_as_without_buckets() -> None:
    model = Reader(causal).eval()
    compiled = torch.compile(model, backend="ttnn", dynamic=True, options={"prompt_buckets": "auto"})
    with torch.no_grad():
        for wrong in (50, -1):
            ids = prompts((9,))[0]
            ids[1, -1] = wrong
            with pytest.raises((IndexError, RuntimeError)):
                model(ids)
            with pytest.raises((IndexError, RuntimeError)):
                compiled(ids)


def test_gradients_are_computed_for_each_length() -> None:
    torch.manual_seed(0)
    model = Reader(last_row)
    compiled = torch.compile(model, backend="ttnn", dynamic=True, options={"prompt_buckets": "auto"})
    for ids in prompts((9, 12)):
        model.zero_grad()
        model(ids).sum().backward()
        expected = model.linear.weight.grad.clone()
        model.zero_grad()
        compiled(ids).sum().backward()
        assert_same(model.linear.weight.grad, expected)
