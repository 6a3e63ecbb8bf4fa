"""What is cut off a convolution is not computed, and one image is cut as it lies."""

import pytest
import torch
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def last(conv, behind, *inputs):
    graph = capture(Module(conv, forward=lambda module, x: behind(module.p0(x))), *inputs)
    graph.apply(canonicalize, channels_last, exact=False)
    return graph


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_causal_convolution_has_zeros_before_it_alone(batch, stride):
    conv = nn.Conv1d(4, 6, 3, padding=4, dilation=2, stride=stride)
    count = 4 // stride
    graph = last(conv, lambda y: torch.relu(y[:, :, :-count].contiguous()), random(batch, 4, 16))
    assert graph.only(operators.conv2d).args[5] == [0, 0, 4, 0] and not graph.calls(aten.slice.Tensor)


def test_rows_and_columns_at_both_sides():
    conv = nn.Conv2d(4, 6, 3, padding=(2, 3))
    graph = last(conv, lambda y: torch.relu(y[:, :, 1:-2, 2:]), random(2, 4, 8, 9))
    assert graph.only(operators.conv2d).args[5] == [1, 0, 1, 3] and not graph.calls(aten.slice.Tensor)


def test_what_others_read_is_computed():
    conv = nn.Conv1d(4, 6, 3, padding=2)
    graph = last(conv, lambda y: (torch.relu(y[:, :, :-2]), y.sigmoid()), random(2, 4, 16))
    assert graph.only(operators.conv2d).args[5] == [0, 0, 2, 2] and len(graph.calls(aten.slice.Tensor)) == 1


def test_more_than_the_zeros_is_cut_where_it_lies():
    conv = nn.Conv1d(4, 6, 3, padding=1)
    graph = last(conv, lambda y: torch.relu(y[:, :, 3:]), random(1, 4, 16))
    assert graph.only(aten.slice.Tensor).args[1] == 2
    (relu,) = graph.calls(aten.relu.default)
    assert relu.args[0] is graph.only(aten.slice.Tensor)


@pytest.mark.parametrize(("step", "target"), [(-1, operators.look_up), (0, aten.slice.Tensor)])
def test_one_step_is_read_as_it_lies_and_looked_up_within_a_tile(step, target):
    conv = nn.Conv1d(4, 6, 3, padding=1)
    graph = last(conv, lambda y: torch.relu(y[:, :, step]), random(1, 4, 16))
    (read,) = graph.calls(operators.look_up, aten.slice.Tensor)
    assert read.target is target and read.args[0] is graph.only(operators.conv2d)
