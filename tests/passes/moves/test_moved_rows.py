"""Rows that change their tiles are looked up by their numbers; what moves whole tiles or parts of rows stays."""

import pytest
from captured import Module, capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.moves.moved_rows import look_up_moved_rows
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def pixels_apart(x):
    """Every second pixel of a row and column as one sequence, as MobileViT has them."""
    batch = x.shape[0]
    return x.reshape(batch, 4, 2, 3, 2, 32).permute(0, 2, 4, 1, 3, 5).reshape(batch * 4, 12, 32)


def pixels_together(x):
    batch = x.shape[0] // 4
    return x.reshape(batch, 2, 2, 4, 3, 32).permute(0, 3, 1, 4, 2, 5).reshape(batch, 48, 32)


def positions(x):
    """Rows narrower than a tile, which may be positions."""
    return x.reshape(2, 3, 4, 2).permute(1, 0, 2, 3).reshape(6, 4, 2)


def heads(x):
    return x.reshape(1, 48, 2, 16).permute(0, 2, 1, 3)


def whole_tiles(x):
    return x.reshape(2, 3, 32, 32).permute(1, 0, 2, 3).reshape(6, 32, 32)


def looked_up(forward, *shape):
    graph = capture(Module(forward=lambda s, x: forward(x.exp()).sin()), random(*shape))
    graph.apply(canonicalize)
    return graph, graph.apply(look_up_moved_rows)


@pytest.mark.parametrize(
    ("forward", "shape"), [(pixels_apart, (1, 48, 32)), (pixels_apart, (3, 48, 32)), (pixels_together, (8, 12, 32))]
)
def test_rows_that_change_their_tiles_are_looked_up(forward, shape):
    graph, count = looked_up(forward, *shape)
    assert count == 1 and graph.only(operators.look_up)
    assert not graph.calls(aten.permute.default, aten.reshape.default)


@pytest.mark.parametrize(
    ("forward", "shape"), [(heads, (1, 48, 32)), (whole_tiles, (1, 192, 32)), (positions, (2, 12, 2))]
)
def test_other_moves_stay(forward, shape):
    graph, count = looked_up(forward, *shape)
    assert count == 0 and graph.calls(aten.permute.default)


def test_rows_of_an_input_are_moved_on_the_host():
    graph = capture(Module(forward=lambda s, x: pixels_apart(x).sin()), random(1, 48, 32))
    graph.apply(canonicalize)
    assert graph.apply(look_up_moved_rows) == 0
