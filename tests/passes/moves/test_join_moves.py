"""Runs of reshapes and permutes become one permute or none, with eager's values, where that saves any."""

import pytest
import torch
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.moves.joined_moves import join_moves
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def joined(forward, shape):
    graph = capture(Module(forward=lambda _, x: torch.relu(forward(torch.tanh(x)))), random(*shape))
    graph.apply(canonicalize)
    return graph, graph.apply(join_moves)


def image(x, height=4):
    """Tokens [batch, seq, channels] as an image, channels first."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], height, -1)


UNDONE = {
    "an image, channels last, of tokens": (lambda x: image(x).permute(0, 2, 3, 1), (2, 12, 5)),
    "tokens of an image that lies channels last": (lambda x: x.permute(0, 3, 1, 2).flatten(2).mT, (2, 3, 4, 5)),
    "windows cut and joined": (
        lambda x: x.view(2, 4, 3, 4, 3, 5).transpose(2, 3).reshape(32, 9, 5).view(8, 4, 3, 3, 5).transpose(1, 2),
        (2, 12, 12, 5),
    ),
}


@pytest.mark.parametrize("name", UNDONE)
def test_moves_that_undo_one_another_are_a_reshape(name):
    graph, count = joined(*UNDONE[name])
    assert count and not graph.calls(aten.permute.default)


FEWER = {
    "heads of an image": (lambda x: image(x).permute(0, 2, 3, 1).view(2, 12, 2, 3).transpose(1, 2), (2, 12, 6)),
    "heads of channels of an image": (lambda x: x.permute(0, 3, 1, 2).view(2, 2, 3, 12).mT, (2, 3, 4, 6)),
}


@pytest.mark.parametrize("name", FEWER)
def test_several_permutes_are_one(name):
    graph, count = joined(*FEWER[name])
    assert count and len(graph.calls(aten.permute.default)) == 1


def test_what_cannot_be_one_permute_of_whole_factors_stays():
    graph, count = joined(lambda x: x.t().reshape(6, 4).t(), (3, 8))
    assert not count and len(graph.calls(aten.permute.default)) == 2


def test_one_permute_stays():
    graph, count = joined(image, (2, 12, 5))
    assert not count and len(graph.calls(aten.permute.default)) == 1


def test_a_value_that_something_else_reads_is_still_made():
    class Both(nn.Module):
        def forward(self, x):
            moved = image(torch.tanh(x))
            return torch.relu(moved), torch.relu(moved.permute(0, 2, 3, 1))

    graph = capture(Both(), random(2, 12, 5))
    graph.apply(canonicalize)
    assert graph.apply(join_moves) == 1
    assert len(graph.calls(aten.permute.default)) == 1


def test_an_einsum_permutes_no_dimensions_of_one():
    graph, count = joined(lambda x: torch.einsum("bqhd,bkhd->bhqk", x, x * 2), (2, 3, 4, 5))
    assert count and max(len(permute.args[1]) for permute in graph.calls(aten.permute.default)) <= 4
