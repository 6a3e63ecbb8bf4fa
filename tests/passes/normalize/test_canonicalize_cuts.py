"""Cuts: out of parts of a concatenation, and once where a row is read with and without its dimension."""

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.cut_joins import cut_before_joins
from tt_dynamo.passes.normalize.moves import normalize_moves


@pytest.fixture
def x():
    return random(2, 5, 8)


@pytest.mark.parametrize("cuts", [(3, slice(3, 4)), (slice(3, 4), 3), (-1, slice(-1, None))])
def test_a_row_is_cut_out_once(cuts, x):
    graph = capture(lambda x: [(x.sin()[:, cut]).exp() for cut in cuts], x)
    graph.apply(canonicalize)
    assert len(graph.calls(aten.slice.Tensor, aten.select.int)) == 1


def test_other_rows_are_cut_out_themselves(x):
    graph = capture(lambda x: [x.sin()[:, cut].exp() for cut in (3, slice(2, 3), slice(3, 5))] + [x.sin()[1:].exp()], x)
    graph.apply(canonicalize)
    assert len(graph.calls(aten.slice.Tensor, aten.select.int)) == 4


@pytest.mark.parametrize(
    ("cut", "rows"),
    [
        (lambda y: y[:, :5], 5), (lambda y: y[:, 5:], 4), (lambda y: y[:, 6:-1], 2), (lambda y: y[:, -3::2], 2),
        (lambda y: y[:, 7], None), (lambda y: y.narrow(-2, 1, 3), 3),
    ],
)  # fmt: skip
def test_what_is_cut_out_of_one_part_of_a_concatenation_skips_it(cut, rows, x):
    graph = capture(lambda x, y: torch.tanh(cut(torch.cat([torch.relu(x), torch.exp(y)], 1))), x, random(2, 4, 8))
    graph.apply(canonicalize)
    assert not graph.calls(aten.cat.default)
    assert graph.only(aten.tanh.default).meta["val"].shape == ((2, rows, 8) if rows else (2, 8))


@pytest.mark.parametrize("cut", [lambda y: y[:, 4:6], lambda y: y[:1], lambda y: y[:, 9:], lambda y: y[..., 3]])
def test_what_is_cut_out_of_more_is_cut_from_the_concatenation(cut, x):
    graph = capture(lambda x, y: cut(torch.cat([torch.relu(x), torch.exp(y)], 1)) * 2, x, random(2, 4, 8))
    graph.apply(canonicalize)
    assert graph.only(aten.cat.default)


@pytest.mark.parametrize(
    ("cut", "parts"),
    [
        (lambda y: y[:, 5:10], 1),
        (lambda y: y[:, -6:], 2),
        (lambda y: y[:, :10], 2),
        (lambda y: y[:, 7], 1),
        (lambda y: y[:, -1], 1),
        (lambda y: y[:, 4:10], 3),
        (lambda y: y[:, 5:10:2], 1),
        (lambda y: y[:1], 3),
    ],
)
def test_a_cut_between_joined_parts_reads_these_alone(cut, parts, x):
    """parts: how many are read"""
    graph = capture(lambda x: torch.relu(cut(torch.cat([x.sin(), x.cos(), x[:, :1].exp()], 1))), x)
    graph.apply(canonicalize)
    assert len(graph.calls(aten.sin.default, aten.cos.default, aten.exp.default)) == parts


def test_a_part_that_changes_before_the_cut_is_read_as_it_was(x):
    def forward(x):
        part = x.sin()
        whole = torch.cat([part, x], 1)
        part.mul_(2)
        return torch.relu(whole[:, :5]) + part

    graph = capture(forward, x)
    graph.apply(canonicalize)


def test_a_cut_that_is_an_input_is_returned_as_a_copy(x):
    graph = capture(lambda x: torch.cat([x, x.sin()], 1)[:, :5], x)
    graph.apply(canonicalize)
    (result,) = graph.module(*graph.arguments)
    assert result.data_ptr() != graph.arguments[0].data_ptr()


def test_writing_to_the_rest_of_a_stack_writes_it_once(x):
    def forward(x):
        y = x.sin()
        y[1:] += 1
        return y

    graph = capture(forward, x)
    normalize_moves(graph.graph, graph.context)
    graph.apply(canonicalize)
    assert len(graph.calls(aten.cat.default)) == 1


def levels(x, y):
    """Two predictions for each level of a detector, joined over levels, and taken apart again."""
    heads = [torch.cat([z.exp(), z[:, :3].tanh()], 1).view(z.shape[0], 8, -1) for z in (x, y)]
    boxes, scores = torch.cat(heads, 2).split((5, 3), 1)
    return boxes.softmax(1), scores.sigmoid()


@pytest.mark.parametrize(
    ("forward", "count"),
    [(levels, 2), (lambda x, y: torch.cat([x.flatten(2), y.flatten(2)], 2)[:, 1:] * 2, 0)],
)
def test_what_was_joined_is_cut_before_another_join(forward, count):
    graph = capture(forward, random(2, 5, 4, 3), random(2, 5, 2, 2))
    assert graph.apply(canonicalize, cut_before_joins, exact=False) == count
    assert len(graph.calls(aten.split_with_sizes.default)) == 0 and len(graph.calls(aten.cat.default)) == max(count, 1)
