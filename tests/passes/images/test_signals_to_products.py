"""Convolutions of signals are products where rows are gathered before them, and where each reads a single row."""

import pytest
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.passes import PHASES
from tt_dynamo.passes.images.signals import signals_to_products
from tt_dynamo.passes.moves.joined_moves import join_moves

STEPS = [step.run for step in PHASES["normalize"] + PHASES["images"]]
BEFORE = STEPS[: STEPS.index(join_moves) + 1]


def rewritten(convolution, forward, channels=32, batch=1, length=20):
    graph = capture(Module(convolution, forward=lambda s, x: forward(s.p0, x)), random(batch, channels, length))
    return graph, graph.apply(*BEFORE, signals_to_products, exact=False)


def reflected(f, x):
    return f(F.pad(x, (3, 2), mode="reflect")).relu()


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}, {"padding": 1}, {"bias": False}])
@pytest.mark.parametrize("batch", [1, 2])
def test_reflected_signals_are_products(options, batch):
    graph, changed = rewritten(nn.Conv1d(32, 8, 3, **options), reflected, batch=batch)
    assert changed == 1 and not graph.calls(operators.conv2d, operators.look_up)


def test_a_convolution_of_one_row_is_a_product():
    graph, changed = rewritten(nn.Conv1d(32, 8, 1), lambda f, x: f(x.exp()))
    assert changed == 1 and not graph.calls(operators.conv2d)


@pytest.mark.parametrize(
    ("convolution", "forward", "options"),
    [
        (nn.Conv1d(32, 8, 3, padding=1), lambda f, x: f(x), {}),  # zeros are TTNN's own
        (nn.Conv1d(24, 8, 3), reflected, {"channels": 24}),  # channels are no whole tiles
        (nn.Conv1d(32, 8, 3, groups=2), reflected, {}),
        (nn.Conv1d(32, 8, 3), reflected, {"length": 1000}),  # the picks would be large
    ],
)
def test_other_convolutions_stay(convolution, forward, options):
    graph, changed = rewritten(convolution, forward, **options)
    assert changed == 0 and len(graph.calls(operators.conv2d)) == 1


def test_a_convolution_of_one_row_behind_another_convolution_stays():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv1d(32, 32, 3), nn.Conv1d(32, 8, 1)

        def forward(self, x):
            return self.second(self.first(x).tanh() * 2)

    graph = capture(Two(), random(1, 32, 20))
    assert graph.apply(*BEFORE, signals_to_products, exact=False) == 0
