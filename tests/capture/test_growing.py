"""What a graph with a growing cache is split into, and which graphs are not split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import assert_same

import tt_dynamo

pytestmark = pytest.mark.usefixtures("board_device", "clean_dynamo")


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


class Layer(torch.nn.Module):
    """Attention to all keys so far, between linears; a counter and a state of its own that each call writes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(32, 32), torch.nn.Linear(32, 32)

    def forward(self, x: torch.Tensor, keys: torch.Tensor, state: torch.Tensor) -> Any:
        before = state * 2
        state.copy_(self.inner(x))
        keys = torch.cat([keys, state], 1)
        y = F.scaled_dot_product_attention(state, keys, keys)
        state.mul_(0.5)
        return self.outer(y + before), keys


def steps(call: Callable[..., Any], batch: int, count: int) -> list[Any]:
    torch.manual_seed(0)
    keys, state = torch.randn(batch, 5, 32), torch.ones(batch, 1, 32)
    results = []
    for _ in range(count):
        y, keys = call(torch.randn(batch, 1, 32), keys, state)
        results.append((y, keys, state.clone()))
    return results


@pytest.mark.parametrize("dynamic", [None, True])
def test_all_lengths_run_the_same_programs(dynamic: bool | None) -> None:
    model = Layer()
    compiled = torch.compile(model, backend="ttnn", dynamic=dynamic)
    with tt_dynamo.record() as reports:
        assert_same(steps(compiled, 2, 8), steps(model, 2, 8))
    assert len(reports) <= 4
    with tt_dynamo.record() as reports:
        assert_same(steps(compiled, 2, 8), steps(model, 2, 8))
    assert not reports


def test_batches_of_other_sizes_are_compiled_once_each() -> None:
    model = Layer()
    compiled = torch.compile(model, backend="ttnn", dynamic=True)
    with tt_dynamo.record() as reports:
        for batch in (2, 3, 2, 3):
            assert_same(steps(compiled, batch, 6), steps(model, batch, 6))
    assert len(reports) == 1 + 2 * 2


def test_where_fallbacks_are_forbidden_each_length_is_compiled() -> None:
    model = Layer()
    compiled = torch.compile(model, backend="ttnn", dynamic=True, options={"fallback": "error"})
    with tt_dynamo.record() as reports:
        assert_same(steps(compiled, 2, 3), steps(model, 2, 3))
    assert len(reports) == 3


def test_autocast_around_a_growing_cache_is_kept() -> None:
    class Cast(Layer):
        def forward(self, *args: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(*args)

    model = Cast()
    ours, eager = (steps(call, 2, 5) for call in (torch.compile(model, backend="ttnn", dynamic=True), model))
    assert [y.dtype for y, *_ in ours] == [y.dtype for y, *_ in eager]
    assert_same([y.float() for y, *_ in ours], [y.float() for y, *_ in eager])


class Masked(Layer):
    """With a mask over the keys so far, as `generate()` gives it, before the first layer and in attention."""

    def forward(self, x: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor) -> Any:
        x = self.inner(x)
        keys = torch.cat([keys, x], 1)
        seen = mask.to(torch.bool)[:, None, :]
        return self.outer(F.scaled_dot_product_attention(x, keys, keys, attn_mask=seen)), keys


def test_a_mask_that_grows_beside_the_cache_leaves_the_programs_alone() -> None:
    model = Masked()
    compiled = torch.compile(model, backend="ttnn")
    made = []
    keys = torch.randn(2, 5, 32)
    for length in range(6, 13):
        mask = torch.ones(2, length, dtype=torch.int64)
        mask[0, :3] = 0
        x = torch.randn(2, 1, 32)
        with tt_dynamo.record() as reports:
            ours = compiled(x, keys, mask)
        assert_same(ours, theirs := model(x, keys, mask))
        keys = theirs[1]
        made.append(len(reports))
    assert made == [1, 3, 0, 0, 0, 0, 0]  # of one length; what runs in eager torch, and a program before and behind it


def test_calls_that_add_other_numbers_of_tokens_have_programs_for_each_number() -> None:
    model = Layer()
    compiled = torch.compile(model, backend="ttnn", dynamic=True)
    keys = torch.randn(2, 5, 32)
    made = []
    for tokens in (3, 2, 3, 2, 2, 3, 4, 3):
        x, states = torch.randn(2, tokens, 32), [torch.ones(2, tokens, 32) for _ in range(2)]
        with tt_dynamo.record() as reports:
            ours = compiled(x, keys, states[0])
        assert_same(ours, theirs := model(x, keys, states[1]))
        assert_same(states[0], states[1])
        keys = theirs[1]
        made.append(len(reports))
    assert made == [3, 2, 0, 0, 0, 0, 2, 0]


class Prefixed(torch.nn.Module):
    """One token in front of inputs of many lengths: all that is computed has a size that differs."""

    def __init__(self) -> None:
        super().__init__()
        self.prefix, self.linear = torch.nn.Parameter(torch.randn(2, 1, 32)), torch.nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.cat([self.prefix, x], 1))


def test_inputs_of_many_lengths_are_no_growing_cache() -> None:
    model = Prefixed()
    compiled = torch.compile(model, backend="ttnn", dynamic=True)
    with tt_dynamo.record() as reports:
        for length in (4, 5, 6):
            x = torch.randn(2, length, 32)
            assert_same(compiled(x), model(x))
    assert len(reports) == 3 and not any(report.fallbacks for report in reports)
