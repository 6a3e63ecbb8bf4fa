"""Reshapes behind one another are one, and equal ones the same."""

from __future__ import annotations

import torch
from captured import capture, random
from torch.fx import Graph

from tt_dynamo.ir.graph import Context, aten
from tt_dynamo.passes.moves.joined_reshapes import cancel_reshapes, join_reshapes


def joined(graph: Graph, context: Context) -> int:
    return join_reshapes(_with_reshapes(graph))


def cancelled(graph: Graph, context: Context) -> int:
    return cancel_reshapes(_with_reshapes(graph))


def _with_reshapes(graph: Graph) -> Graph:
    for view in graph.find_nodes(op="call_function", target=aten.view.default):
        view.target = aten.reshape.default
    return graph


def test_reshapes_that_follow_one_another_are_one() -> None:
    graph = capture(lambda x: x.reshape(2, 3, 4).reshape(6, 4).sin().reshape(24).reshape(6, 4).cos(), random(6, 4))
    assert graph.apply(joined) >= 2
    assert not graph.calls(aten.reshape.default)


def test_equal_reshapes_are_one_and_one_that_is_read_stays() -> None:
    def forward(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x.reshape(2, 12)
        return y.sin(), y.reshape(3, 8).sin(), x.reshape(2, 12).cos()

    graph = capture(forward, random(6, 4))
    assert graph.apply(joined) >= 1
    assert len(graph.calls(aten.reshape.default)) == 2


def test_reshapes_that_undo_one_another_go_also_where_something_else_reads_between() -> None:
    def forward(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x.reshape(2, 12)
        return y.reshape(6, 4).sin(), y.sin()

    graph = capture(forward, random(6, 4))
    assert graph.apply(cancelled) == 1
    assert len(graph.calls(aten.reshape.default)) == 1
