"""Inputs and buffers that a model writes: what it read before the write stays what it was, whatever moved it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import check

from tt_dynamo.runtime import recovery
from tt_dynamo.runtime.program import Program

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")

COPIES: dict[str, Callable[[torch.Tensor], Any]] = {
    "all of it": lambda x: x.clone(),
    "a slice": lambda x: x[1:3].clone(),
    "a transpose": lambda x: x.t().contiguous(),
    "a sum with zero, viewed": lambda x: (x + 0).view(-1),
    "one part, joined": lambda x: torch.cat([x]),
    "one part, stacked": lambda x: torch.stack([x])[0],
    "padding by nothing": lambda x: F.pad(x, (0, 0)),
    "padding by less than nothing": lambda x: F.pad(x, (-1, -1)),
    "every element by its index": lambda x: x[torch.arange(4)[:, None], torch.arange(4)],
    "rows by their numbers": lambda x: x[torch.arange(1, 3)],
    "rows that are selected": lambda x: x.index_select(0, torch.arange(4)),
    "elements that are gathered": lambda x: x.gather(0, torch.arange(4)[:, None].expand(4, 4)),
    "one tile": lambda x: x.repeat(1, 1),
    "a part, written whole": lambda x: torch.slice_scatter(torch.zeros_like(x), x),
    "a roll by nothing": lambda x: x.roll(0, 0),
    "a choice that is none": lambda x: torch.where(torch.ones(4, 4, dtype=torch.bool), x, x),
    "a largest of one": lambda x: x[:, :1].amax(1),
    "a sum of one": lambda x: x.unsqueeze(0).sum(0),
    "a product with one": lambda x: x * 1,
    "a cast there": lambda x: x.to(x.dtype, copy=True),
    "a clone of a clone, transposed": lambda x: x.clone().transpose(0, 1).clone()[1:],
    "halves": lambda x: [half.clone() for half in x.chunk(2)],
    "both, moved": lambda x: (x.clone().t(), x[1:].clone()),
}


def numbers(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.arange(16.0).view(4, 4) - 5).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.int32], ids=str)
@pytest.mark.parametrize("what", COPIES)
def test_a_copy_is_what_the_input_was(what: str, dtype: torch.dtype) -> None:
    def model(x: torch.Tensor) -> Any:
        y = COPIES[what](x)
        x.zero_()
        return y

    check(model, lambda: [numbers(dtype)], calls=2)


@pytest.mark.parametrize("what", COPIES)
def test_a_copy_is_what_the_input_was_beside_work_on_the_device(what: str) -> None:
    def model(x: torch.Tensor, z: torch.Tensor) -> Any:
        y, w = COPIES[what](x), torch.tanh(x) @ z
        x.copy_(w)
        return y, w, torch.relu(y[0])

    check(model, lambda: [numbers(), torch.randn(4, 4)], calls=2)


def swap(a: torch.Tensor, b: torch.Tensor) -> None:
    kept = a.clone()
    a.copy_(b)
    b.copy_(kept)


def rotate(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    first, second = a.t().clone(), b.clone().t()
    a.copy_(b + 0)
    b.copy_(c)
    c.copy_(second)
    return first


def transpose(a: torch.Tensor) -> None:
    a.copy_(a.t().clone())


def move_a_row(a: torch.Tensor, b: torch.Tensor) -> None:
    row = b[1].clone()
    b.zero_()
    a.copy_(row)


def write_after_reading(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a[1:].copy_(b[:3].clone())
    b.add_(a)
    return a[0]


@pytest.mark.parametrize(
    ("model", "inputs"), [(swap, 2), (rotate, 3), (transpose, 1), (move_a_row, 2), (write_after_reading, 2)]
)
def test_what_is_written_is_what_another_input_was(model: Callable[..., Any], inputs: int) -> None:
    check(model, lambda: [numbers() + 100 * i for i in range(inputs)], calls=2)


class Recurrent(torch.nn.Module):
    """A model that gives the state before the last, moved, and writes the next."""

    def __init__(self, previous: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.previous, self.weight = previous, torch.nn.Parameter(torch.randn(32, 32) / 8)
        self.register_buffer("state", torch.randn(32, 32))

    def forward(self, x: torch.Tensor) -> Any:
        previous = self.previous(self.state)
        new = torch.tanh(self.state @ self.weight + x)
        self.state.copy_(new)
        return previous, new.sum(-1)


STATES = {
    "a copy, transposed": lambda state: state.clone().transpose(0, 1),
    "a copy of a view": lambda state: state[2:5].clone(),
    "rows": lambda state: state.t().contiguous()[3],
}


@pytest.mark.parametrize("placement", ["fewest_bytes", "device"])
@pytest.mark.parametrize("what", STATES)
def test_a_state_given_back_is_the_one_before(what: str, placement: str) -> None:
    check(Recurrent(STATES[what]), lambda: [torch.randn(32, 32)], calls=3, options={"placement": placement})


def test_recovery_reads_what_was_there_before_the_write(
    board_device: Any, monkeypatch: pytest.MonkeyPatch, warnings_logged: Any
) -> None:
    """Every node on the device runs in eager torch, where a move is a view of the input."""

    def model(x: torch.Tensor, z: torch.Tensor) -> Any:
        y, w = torch.tanh(x + z) @ z, x.t().unsqueeze(0).clone()
        x.copy_(y)
        return w, y

    def refuse(self: Any, node: Any) -> Any:
        raise RuntimeError("Out of Memory")

    def fail(self: Program, args: list[Any]) -> Any:
        return self._recover(args, "Out of Memory")

    monkeypatch.setattr(recovery._Run, "_on_device", refuse)
    monkeypatch.setattr(Program, "_call", fail)
    check(model, lambda: [torch.randn(32, 32), torch.randn(32, 32)], options={"placement": "device"}, calls=2)


@pytest.mark.parametrize(
    "rows",
    [
        lambda: torch.arange(0, 10, 2),
        lambda: torch.arange(5) * 2,
        lambda: torch.arange(9, -1, -2),
        lambda: torch.arange(5) + 3,
        lambda: torch.tensor([4, 0, 2, 7, 1]),
        lambda: torch.tensor([6]),
        lambda: torch.arange(1) + 6,
    ],
)
def test_rows_of_a_cache_are_written_where_they_belong(rows: Callable[[], torch.Tensor]) -> None:
    def model(cache: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        positions = rows()
        cache.index_copy_(2, positions, torch.relu(x[:, :, : len(positions)]))
        return cache * 2

    check(model, lambda: [torch.randn(1, 2, 32, 32), torch.randn(1, 2, 5, 32)], calls=2)
