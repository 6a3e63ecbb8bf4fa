"""Rows of one value side by side are looked up at once; what else is joined stays joined."""

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.moves.joined_rows import join_rows
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def joined(model, *shapes):
    graph = capture(model, *(random(*shape) for shape in shapes))
    return graph, graph.apply(canonicalize, join_rows)


@pytest.mark.parametrize("order", [((0, 0), (1, 0), (0, 1), (1, 1)), ((0, 0), (0, 1), (1, 0), (1, 1))])
def test_patches_are_merged_by_one_lookup(order):
    graph, changed = joined(lambda x: torch.cat([x[:, i::2, j::2, :] for i, j in order], -1), (2, 6, 8, 5))
    assert changed == 1 and graph.only(operators.look_up).args[0].op == "placeholder"
    assert not graph.calls(aten.slice.Tensor, aten.cat.default)


@pytest.mark.parametrize(
    "model",
    [
        lambda x, y: torch.cat([x[..., i::4] for i in range(4)], -1),  # columns
        lambda x, y: torch.cat([x[:, i::2] for i in range(2)] * 2, 1),  # below one another
        lambda x, y: torch.cat([x[:, :4], x[:, 4:], y], -1),  # of two values
        lambda x, y: torch.cat([x[:, :4], x[:, 4:].tanh(), x[:, :4]], -1),  # computed
    ],
)
def test_other_joins_stay(model):
    graph, changed = joined(model, (2, 8, 4), (2, 4, 4))
    assert changed == 0 and graph.calls(aten.cat.default)
