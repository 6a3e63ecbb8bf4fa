"""Moves of whole rows are one lookup, with eager's values whatever moves."""

import pytest
import torch
from captured import Module, capture, parameter, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.normalize.lookups import index_put_to_embedding, index_to_embedding

look_up, pick = operators.look_up, operators.pick


def looked_up(model, *inputs):
    graph = capture(model, *inputs)
    graph.apply(index_to_embedding)
    return graph


@pytest.mark.parametrize("move", [lambda x: x.roll(3, 1), lambda x: x.flip(0, 1), lambda x: x[:, [2, 0, 1]]])
def test_rows_that_move_whole_are_looked_up(move):
    graph = looked_up(lambda x: torch.relu(move(torch.relu(x))), random(2, 5, 4))
    assert graph.targets() == [aten.relu.default, look_up, aten.relu.default]


def test_moves_before_and_after_join_the_lookup():
    def windows(x):
        x = torch.relu(x).view(2, 2, 4, 3).permute(1, 0, 2, 3).roll((1, 2), (0, 2))
        return torch.relu(x.transpose(0, 2).reshape(8, 2, 3)[1:])

    graph = looked_up(windows, random(4, 4, 3))
    assert graph.targets() == [aten.relu.default, look_up, aten.relu.default]


def test_a_lookup_ends_where_rows_are_cut():
    graph = looked_up(lambda x: torch.relu(torch.relu(x).roll(1, 0)[:, 1:]), random(4, 6))
    assert graph.targets() == [aten.relu.default, look_up, aten.slice.Tensor, aten.relu.default]


def test_what_others_read_stays_outside():
    def model(x):
        y = torch.relu(x).permute(1, 0, 2)
        z = y.roll(1, 0)
        return torch.relu(z), y * 2, z[1:] + 1

    graph = looked_up(model, random(2, 3, 4))
    assert len(graph.calls(look_up)) == 1 and len(graph.calls(aten.permute.default)) == 1
    assert len(graph.calls(aten.slice.Tensor)) == 1


def test_a_dimension_that_stays_whole_is_brought_to_the_end():
    graph = looked_up(lambda x: torch.relu(x).flip(-1) * 1, random(2, 3, 4))
    assert graph.targets()[1:4] == [aten.permute.default, look_up, aten.permute.default]


def test_where_none_stays_whole_elements_are_picked():
    graph = looked_up(lambda x: torch.relu(x).flip(0, 1) * 1, random(3, 4))
    assert len(graph.calls(pick)) == 1


def test_rows_in_order_are_a_slice():
    graph = looked_up(lambda x: torch.relu(x)[:, [1, 3]] * 1, random(2, 5, 4))
    (cut,) = graph.calls(aten.slice.Tensor)
    assert cut.args[1:] == (1, 1, 4, 2) and not graph.calls(look_up)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: torch.relu(x).as_strided((3, 2, 1), (2, 1, 1)) * 1,
        lambda x: (x > 0)[torch.arange(2)[:, None, None, None], torch.arange(3)],
    ],
)
def test_every_element_in_order_is_a_reshape(model):
    graph = looked_up(model, random(2, 3))
    assert graph.calls(aten.reshape.default)
    assert not graph.calls(look_up, pick, aten.as_strided.default, aten.index.Tensor)


def test_what_the_graph_writes_later_is_copied_before():
    def model(x):
        y = x[torch.arange(4)[:, None], torch.arange(4)]
        x.zero_()
        return y

    graph = looked_up(model, random(4, 4))
    assert len(graph.calls(aten.clone.default)) == 1


@pytest.mark.parametrize(
    "index",
    [
        lambda x, i: x[i],
        lambda x, i: x[:, i],
        lambda x, i: x[..., i],
        lambda x, i: x[i, :, i],
        lambda x, i: x[:, i, :, i[:, None]],
        lambda x, i: x[:, i[:, None], i],
        lambda x, i: x.index_select(2, i),
    ],
)
def test_computed_indices_become_numbers_of_rows(index):
    graph = looked_up(lambda x, i: torch.relu(index(torch.relu(x), i)), random(3, 4, 5, 6), torch.tensor([2, 0]))
    (numbers,) = graph.calls(operators.index_numbers)
    assert graph.only(look_up).args[1] is numbers


def test_integers_stay_as_they_are():
    graph = capture(lambda i: i.roll(1, 0) + i.flip(1), torch.arange(12).view(3, 4))
    assert index_to_embedding(graph.graph, graph.context) == 0


def test_constants_stay_as_they_are():
    table = Module(parameter(3, 4), forward=lambda s, x: torch.relu(x) @ s.p0.roll(1, 0))
    graph = capture(table, random(2, 3))
    assert index_to_embedding(graph.graph, graph.context) == 0


@pytest.mark.parametrize(
    "write",
    [
        lambda x, i, v: x.index_put((i,), v),
        lambda x, i, v: x.index_put((i,), v[0, 0]),
        lambda x, i, v: x.index_put((i, i), v[:, 0]),
        lambda x, i, v: x.index_copy(0, i, v),
        lambda x, i, v: x.index_put((i[:1],), v[:1]),
    ],
)
def test_writes_read_rows_from_what_is_written(write):
    inputs = random(3, 4, 5), torch.tensor([2, 0]), random(2, 4, 5)
    graph = capture(lambda x, i, v: torch.relu(write(torch.relu(x), i, v)), *inputs)
    graph.apply(index_put_to_embedding)
    assert len(graph.calls(operators.put_numbers, aten.cat.default, look_up)) == 3


def test_sums_are_no_writes():
    def model(x, i, v):
        return torch.relu(x).index_put((i,), v, accumulate=True) * 1

    graph = capture(model, random(3, 4), torch.tensor([2, 2]), random(2, 4))
    assert index_put_to_embedding(graph.graph, graph.context) == 0
