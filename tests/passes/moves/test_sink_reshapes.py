"""Reshapes of rows sink below what works row by row; means of rows are products; nothing is expanded in vain."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, parameter, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.passes.fuse.means import means_of_rows
from tt_dynamo.passes.moves.expands import drop_expands
from tt_dynamo.passes.moves.reshapes import sink_reshapes
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import emit
from tt_dynamo.passes.rows import literal


def sunk(model, *shapes):
    graph = capture(Module(parameter(8, 8), parameter(7, 7, 8), forward=model), *(random(*shape) for shape in shapes))
    return graph, graph.apply(canonicalize, sink_reshapes, exact=False)


def normed(s, x):
    return F.layer_norm(x.reshape(2, 7, 7, 8), (8,)) + s.p1


def test_a_reshape_sinks_below_a_norm_and_a_sum_with_a_constant():
    graph, changed = sunk(normed, (2, 49, 8))
    assert changed == 1
    assert graph.only(aten.layer_norm.default).args[0].op == "placeholder"


def test_a_mean_over_rows_and_columns_is_one_over_pixels():
    graph, changed = sunk(lambda s, x: F.layer_norm(x.reshape(2, 7, 7, 8), (8,)).mean((1, 2)), (2, 49, 8))
    assert changed == 2
    assert graph.only(aten.mean.dim).args[1] == [1] and not graph.calls(aten.reshape.default)


def test_reshapes_from_views_of_one_shape_sink_below_their_sum():
    graph, changed = sunk(lambda s, x, y: x.reshape(2, 7, 7, 8) + y.reshape(2, 7, 7, 8), (2, 49, 8), (2, 1, 49, 8))
    assert changed == 1
    assert shape_of(graph.only(aten.add.Tensor)) == (2, 49, 8)


@pytest.mark.parametrize("shape", [(49,), (7, 7)])
def test_rows_are_looked_up_in_any_shape_and_as_any(shape):
    graph = capture(lambda x: F.layer_norm(x.reshape(1, 7, 7, 8), (8,)), random(1, 49, 8))
    norm, output = graph.only(aten.layer_norm.default), graph.graph.output_node()
    rows = torch.arange(49).flip(0).reshape(shape)
    with graph.graph.inserting_before(output):
        found = emit(norm, operators.look_up, norm, literal(norm, rows))
        output.args = ((emit(norm, aten.reshape.default, found, [49, 8]),),)
    assert graph.apply(canonicalize, sink_reshapes) == (2 if shape == (49,) else 3)
    assert not graph.calls(aten.reshape.default)


@pytest.mark.parametrize(
    "model",
    [
        lambda s, x, y: F.layer_norm(x.reshape(2, 7, 7, 8), (7, 8)),  # a norm of more than a row
        lambda s, x, y: F.gelu(x.reshape(2, 49, 2, 4)),  # other rows
        lambda s, x, y: x.reshape(2, 7, 7, 8) + y,  # only one of two
        lambda s, x, y: F.gelu(y.reshape(2, 49, 8)).mean(1, dtype=torch.float64),  # in another dtype
        lambda s, x, y: [
            F.gelu(z) for z in (x.reshape(2, 7, 7, 8),) * 2 + (x.reshape(2, 7, 7, 8).sum(2),)
        ],  # read twice
    ],
)
def test_other_reshapes_stay(model):
    graph, _ = sunk(model, (2, 49, 8), (2, 7, 7, 8))
    assert graph.calls(aten.reshape.default)


def mean_of(model, *shape):
    graph = capture(model, random(*shape))
    return graph, graph.apply(canonicalize, means_of_rows, exact=False)


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_mean_behind_a_class_token_is_a_product(batch, keeps):
    graph, changed = mean_of(lambda x: x[:, 1:].mean(1, keepdim=keeps), batch, 17, 8)
    assert changed == 1
    assert graph.only(aten.matmul.default).args[0].meta["val"].shape == (batch, 1, 17)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x[:, 32:].mean(1),  # whole tiles are cut
        lambda x: x[:, 1:].mean(2),
        lambda x: x[:, 1::2].mean(1),
        lambda x: (x[:, 1:], x[:, 1:].mean(1)),
    ],
)
def test_other_means_stay(model):
    assert mean_of(model, 2, 64, 8)[1] == 0


def test_a_mask_is_not_expanded_before_it_chooses():
    def model(mask, bias, x):
        return torch.where((mask > 0).expand(1, 1, 6, 6), bias, 0.0) + x.expand(1, 4, 6, 6)

    graph = capture(model, random(1, 1, 1, 6), random(1, 4, 6, 6), random(1, 1, 6, 6))
    assert graph.apply(canonicalize, drop_expands) == 2
    assert not graph.calls(aten.expand.default)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x.expand(4, 6) * 2.0,  # nothing else is as large
        lambda x: x.expand(4, 6) + x.expand(4, 6),
        lambda x: x.expand(4, 6).relu(),
    ],
)
def test_what_nothing_else_makes_larger_is_expanded(model):
    graph = capture(model, random(1, 6))
    graph.apply(canonicalize, drop_expands)
    assert graph.calls(aten.expand.default)
