"""Rows of a class token beside those of an image: cut and joined where they lie."""

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random

from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.moves.cut_rows import cut_rows
from tt_dynamo.passes.normalize.canonicalize import canonicalize

TOKEN, IMAGE = random(2, 1, 8), random(2, 5, 8)


def cut(model, *inputs):
    graph = capture(model, *inputs)
    return graph, graph.apply(canonicalize, cut_rows, exact=False)


def norm(x):
    return F.layer_norm(x, [8])


@pytest.mark.parametrize("pick", [lambda x: x[:, 0], lambda x: x[:, :1]])
def test_a_token_is_normed_alone(pick):
    graph, _ = cut(lambda token, x: pick(norm(torch.cat([token, x], 1)) * 2.0), TOKEN, IMAGE)
    assert not graph.calls(aten.cat.default)
    assert shape_of(graph.only(aten.layer_norm.default)) == (2, 1, 8)


def test_tokens_that_go_their_own_way_are_joined_once():
    def model(token, x):
        every = norm(torch.cat([token, x], 1))
        joined = torch.cat([torch.tanh(every[:, :1]), every[:, 1:]], 1) + torch.cat([token, x], 1)
        return torch.cat([joined[:, :1].sin(), joined[:, 1:]], 1) + torch.cat([joined[:, :1], joined[:, 1:]], 1)

    graph, _ = cut(model, TOKEN, IMAGE)
    assert len(graph.calls(aten.cat.default)) == 1 and not graph.calls(aten.slice.Tensor)


@pytest.mark.parametrize("row", [0, 2, 4])
def test_a_row_in_place_of_another_is_chosen(row):
    graph, _ = cut(lambda token, x: torch.cat([x[:, :row], token, x[:, row + 1 :]], 1), TOKEN, IMAGE)
    assert graph.only(aten.where.self) and not graph.calls(aten.cat.default, aten.slice.Tensor)


@pytest.mark.parametrize(
    "model",
    [
        lambda token, x: torch.cat([token, x], 1)[:, 1:3],  # less than a part
        lambda token, x: torch.cat([token, x], 1).softmax(1)[:, :1],  # rows that know of one another
        lambda token, x: torch.cat([token, x[:, :4]], 1),  # moved
        lambda token, x: torch.cat([token, token, x[:, 2:]], 1),  # two rows
        lambda token, x: torch.cat([x, x], -1)[:, :1],  # columns
        lambda token, x: torch.cat([token, x.bfloat16()], 1)[:, 1:].sin(),  # of a dtype of its own
    ],
)
def test_other_cuts_and_joins_stay(model):
    graph, changed = cut(model, TOKEN, IMAGE)
    assert changed == 0 and graph.calls(aten.cat.default)
