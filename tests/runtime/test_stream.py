"""`tt_dynamo.stream`: results in order, calls ahead of their reader, and each error in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from comparison import assert_close
from small_models import Feedforward

import tt_dynamo
from tt_dynamo.options import OptionError


def refuse_three(x: int) -> int:
    if x == 3:
        raise ArithmeticError("three")
    return x * 10


def drain(results: Iterator[Any]) -> tuple[list[Any], str]:
    found = []
    try:
        for result in results:
            found.append(result)
    except ArithmeticError as error:
        return found, str(error)
    return found, ""


@pytest.mark.usefixtures("clean_dynamo", "board_device")
@torch.no_grad()
def test_a_compiled_model_gives_eager_s_results_in_order() -> None:
    model, batches = Feedforward(), [torch.randn(4, 32) for _ in range(5)]
    compiled = torch.compile(model, backend="ttnn", options={"outputs": "device"})
    results = list(tt_dynamo.stream(compiled, iter(batches)))
    assert len(results) == 5
    for result, batch in zip(results, batches, strict=True):
        assert_close(result, model(batch))


def test_calls_run_ahead_by_the_depth_and_no_more() -> None:
    called: list[int] = []
    results = tt_dynamo.stream(called.append, iter(range(9)), depth=3)
    assert called == []
    next(results)
    assert called == [0, 1, 2]
    next(results)
    assert called == [0, 1, 2, 3]
    results.close()  # type: ignore[attr-defined]
    assert called == [0, 1, 2, 3]


@pytest.mark.parametrize("depth", [1, 2, 9])
def test_an_error_is_raised_at_its_batch(depth: int) -> None:
    assert drain(tt_dynamo.stream(refuse_three, range(6), depth=depth)) == ([0, 10, 20], "three")
    skipping = tt_dynamo.stream(refuse_three, range(6), depth=depth, on_error="skip")
    assert drain(skipping) == ([0, 10, 20, 40, 50], "")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_what_the_batches_raise_comes_after_the_results_before_it(on_error: str) -> None:
    def batches() -> Iterator[int]:
        yield 1
        yield 2
        raise ArithmeticError("no more")

    assert drain(tt_dynamo.stream(refuse_three, batches(), on_error=on_error)) == ([10, 20], "no more")


def test_tuples_are_arguments_and_dicts_keywords() -> None:
    batches: list[Any] = [(1, 2), {"base": 3, "exp": 2}]
    assert list(tt_dynamo.stream(pow, batches)) == [1, 9]
    assert list(tt_dynamo.stream(len, [])) == []


def test_bad_input_is_refused_at_once() -> None:
    with pytest.raises(OptionError, match="on_error"):
        tt_dynamo.stream(len, [], on_error="skipp")
    with pytest.raises(ValueError, match="at least 1"):
        tt_dynamo.stream(len, [], depth=0)
    with pytest.raises(TypeError, match="not 3"):
        tt_dynamo.stream(3, [])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="iterable"):
        tt_dynamo.stream(len, 3)  # type: ignore[arg-type]
