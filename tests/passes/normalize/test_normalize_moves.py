"""Moves and constants in their few spellings, equal to the last bit."""

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.normalize.moves import keep_strides, normalize_moves

SPELLED = {
    "stack": (lambda x: torch.stack([x, x * 2], -1), aten.stack.default),
    "cat of parts without elements": (lambda x: torch.cat([x, x[:0]]), aten.cat.default),
    "select_scatter": (lambda x: torch.select_scatter(x, x[:, 0], 1, -1), aten.select_scatter.default),
    "slice_scatter": (lambda x: torch.slice_scatter(x, x[:, 1:], 1, 0, -1), aten.slice_scatter.default),
    "select_scatter into windows": (
        lambda x: torch.select_scatter(x[0].unfold(0, 3, 1), x[1, :3], 0, 1),
        aten.select_scatter.default,
    ),
    "slice_scatter into windows": (
        lambda x: torch.slice_scatter(x[0].unfold(0, 2, 1), x[1:, :2], 0, 0, 2),
        aten.slice_scatter.default,
    ),
    "diagonal_scatter into windows": (
        lambda x: torch.diagonal_scatter(x[0].unfold(0, 2, 1), x[1, :2]),
        aten.diagonal_scatter.default,
    ),
    "slice_scatter of all": (lambda x: torch.slice_scatter(x, x * 2, 0), aten.slice_scatter.default),
    "pad by nothing": (lambda x: F.pad(x, (0, 0)), aten.constant_pad_nd.default),
    "pad by less": (lambda x: F.pad(x, (-1, -1)), aten.constant_pad_nd.default),
    "zeros_like": (lambda x: x + torch.zeros_like(x), aten.zeros_like.default),
    "full_like": (lambda x: x + torch.full_like(x, 2), aten.full_like.default),
    "fill": (lambda x: x + (x * 1).fill_(3), aten.fill.Scalar),
    "copy": (lambda x: torch.zeros(2, 3, 4).copy_(x), aten.copy.default),
    "index_fill": (lambda x: x.index_fill(1, torch.tensor([0, 2]), 2.0), aten.index_fill.int_Scalar),
    "index_add": (lambda x: x.index_add(1, torch.tensor([0, 2]), x[:, :2], alpha=3), aten.index_add.default),
    "a mask": (lambda x: x.index_put((x[:, 0] > 0,), torch.tensor(3.0)), aten.index_put.default),
    "accumulation": (lambda x: x.index_put((torch.tensor([0, 0]),), x[:2], accumulate=True), aten.index_put.default),
    "unfold with padding": (lambda x: F.unfold(x[None, None], (2, 2), padding=1), None),
    "scatter of no dimension": (lambda x: x[0, 0].scatter(0, torch.tensor(0), 2.0), aten.scatter.value),
}


@pytest.mark.parametrize("name", SPELLED)
def test_spelled_otherwise(name):
    move, gone = SPELLED[name]
    graph = capture(lambda x: move(torch.relu(x)) * 1, random(3, 4))
    assert graph.apply(normalize_moves) > 0
    assert gone is None or not graph.calls(gone)


@pytest.mark.parametrize(
    "move", [lambda x, i: x.gather(1, i), lambda x, i: x.scatter(1, i, 2.0), lambda x, i: x.scatter_add(1, i, x)]
)
def test_indices_are_checked_on_the_host(move):
    graph = capture(lambda x, i: move(torch.relu(x), i) * 1, random(3, 4), torch.zeros(3, 2, dtype=torch.int64))
    graph.apply(normalize_moves)
    assert len(graph.calls(operators.bounded)) == 1


def test_positions_of_integers_stay_with_eager_torch():
    ids = torch.arange(12).view(3, 4)
    graph = capture(lambda i: i.gather(1, i % 4) + i.scatter_add(1, i % 4, i), ids)
    assert normalize_moves(graph.graph, graph.context) == 0


def test_what_lies_as_its_strides_say_is_not_respelled():
    graph = capture(lambda x: (torch.relu(x).t() * 2).as_strided((2, 2), (1, 2)) + 1, random(3, 4))
    graph.apply(keep_strides)
    assert normalize_moves(graph.graph, graph.context) == 0
    assert len(graph.calls(aten.copy.default)) == 1


@pytest.mark.parametrize(
    "model",
    [
        torch.zeros_like,
        lambda x: torch.ones_like(x, dtype=torch.int64),
        lambda x: torch.full_like(x, 2.5),
        lambda x: x.new_full((2, 3), True),
        lambda x: x.new_zeros(4),
        lambda x: aten.fill.Scalar(x, 3),
        lambda x: torch.exp(x[:0]),
        lambda x: x[:0] * torch.ones(5, dtype=torch.int64),
    ],
)
def test_what_a_tensor_gives_no_contents_to_is_a_constant(model):
    graph = capture(model, random(3, 5))
    graph.apply(normalize_moves)
    assert graph.targets()[-1] is aten.full.default


def test_what_has_no_elements_may_still_be_summed():
    graph = capture(lambda x: x[:0].sum(), random(3, 5))
    graph.apply(normalize_moves)
    assert graph.calls(aten.sum.default)
