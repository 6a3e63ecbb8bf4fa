"""Streams of one token are carried as rows of one tile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.moves.stacked_rows import carry_stacked_rows
from tt_dynamo.passes.normalize.canonicalize import canonicalize

Tensor = torch.Tensor
ROWS, STREAM, COLUMN = (1, 4, 32), (1, 1, 32), (4, 1, 1, 1)


def stacked(rows: Tensor) -> Tensor:
    return (rows * 2).reshape(4, 1, 1, 32)


def test_updates_and_the_first_stream_are_of_rows() -> None:
    def update(rows: Tensor, stream: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.addcmul(stacked(rows), stream, column)
        return (y * 0.5 - stream).reshape(1, 4, 32), y[0]

    graph = capture(update, random(*ROWS), random(*STREAM), random(*COLUMN))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(carry_stacked_rows) == 4
    assert {node.meta["val"].shape for node in graph.calls(aten.reshape.default)} == {(1, 4, 1)}, "the column alone"
    assert graph.only(aten.addcmul.default).meta["val"].shape == ROWS
    assert graph.only(aten.slice.Tensor).meta["val"].shape == STREAM


def test_of_three_dimensions_rows_have_two() -> None:
    graph = capture(lambda x, y: ((x * 2).reshape(4, 1, 32) + y)[0], random(4, 32), random(1, 32))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(carry_stacked_rows) == 2
    assert graph.only(aten.add.Tensor).meta["val"].shape == (4, 32)


@pytest.mark.parametrize(
    ("forward", "shapes"),
    [
        (lambda x: stacked(x)[1], (ROWS,)),  # within a tile
        (lambda x: stacked(x).exp(), (ROWS,)),
        (lambda x, y: stacked(x) + y, (ROWS, (4, 2, 1, 32))),  # of two tokens
        (lambda x, y: stacked(x).reshape(4, 1, 2, 16) + y, (ROWS, (4, 1, 1, 16))),
        (lambda x, y: (x * 2).reshape(40, 1, 1, 32) + y, ((1, 40, 32), STREAM)),  # more than a tile
    ],
)
def test_other_stacks_stay(forward: Callable[..., Tensor], shapes: tuple[tuple[int, ...], ...]) -> None:
    graph = capture(forward, *(random(*shape) for shape in shapes))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(carry_stacked_rows) == 0
