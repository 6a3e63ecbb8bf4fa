"""Activations become part of the convolution or sum that they alone read."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.passes.fuse.epilogues import fuse_image_activation
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.normalize.canonicalize import canonicalize

IMAGE = random(2, 6, 9, 11)
ACTIVATIONS = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "silu": nn.SiLU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
}


def fused(model):
    graph = capture(model, IMAGE)
    graph.apply(canonicalize, channels_last, exact=False)
    return graph, graph.apply(fuse_image_activation, exact=False)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_joins_its_convolution(name):
    graph, changed = fused(nn.Sequential(nn.Conv2d(6, 4, 3), ACTIVATIONS[name]))
    assert changed == 1
    assert graph.only(operators.conv2d).args[8] == name


def test_an_activation_joins_a_residuals_sum():
    graph, changed = fused(Module(nn.Conv2d(6, 6, 3, padding=1), forward=lambda m, x: F.relu(m.p0(x) + m.p0(x * 2))))
    assert changed == 1
    assert graph.only(operators.add_activation).args[2] == "relu"


STAYING = {
    "of a convolution that something else reads": lambda m, x: (lambda y: (y.relu(), y))(m.p0(x)),
    "that TTNN does not fuse": lambda m, x: F.hardswish(m.p0(x)),
    "with other limits": lambda m, x: F.hardtanh(m.p0(x), -1, 5),
    "of a sum that is broadcast": lambda m, x: (x[:, :, 4:5].sum(3, keepdim=True) + x).relu(),
    "of a sum with a factor": lambda m, x: x.add(x * 2, alpha=2).relu(),
}


@pytest.mark.parametrize("name", STAYING)
def test_other_activations_stay(name):
    _, changed = fused(Module(nn.Conv2d(6, 4, 3), forward=STAYING[name]))
    assert changed == 0
