"""Matrix products: linear layers with bias and activation in one kernel, and batched products."""

import pytest
import torch
from compiled import calls, check, random, rounded
from torch import nn

from tt_dynamo import operators


@pytest.mark.parametrize("shape", [(3, 33), (2, 3, 33), (1, 33), (2, 2, 3, 33), (33,), (64, 33)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_of_any_rank_is_one_call(shape, bias):
    report = check(rounded(nn.Linear(33, 17, bias=bias)), random(*shape))
    assert calls(report).count("linear") == 1


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (33, 32), (64, 96), (5, 1)], ids=str)
def test_widths_of_any_size_are_multiplied(shape):
    check(rounded(nn.Linear(*shape)), random(2, shape[0]))


@pytest.mark.parametrize("name", operators.ACTIVATIONS)
def test_an_activation_joins_the_kernel_of_its_linear(name):
    linear = rounded(nn.Linear(33, 17))
    report = check(lambda x: operators.ACTIVATIONS[name](linear(x)), random(2, 3, 33), cancels=True)
    assert calls(report) == ["linear"]
    assert report.device_programs == 1


def test_the_core_grid_and_the_fidelity_are_always_given():
    code = check(rounded(nn.Linear(33, 17)), random(2, 33)).code
    assert "core_grid=" in code and "compute_kernel_config=" in code


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 33), (33, 5)),
        ((4, 3, 33), (4, 33, 5)),
        ((2, 4, 3, 33), (2, 4, 33, 5)),
        ((2, 4, 3, 33), (4, 33, 5)),
        ((2, 4, 3, 33), (33, 5)),
        ((1, 3, 33), (1, 33, 1)),
    ],
    ids=str,
)
def test_products_of_computed_matrices(shapes):
    report = check(lambda a, b: torch.relu(a) @ b, random(*shapes[0]), random(*shapes[1]))
    assert set(calls(report)) & {"matmul", "linear"}


def test_a_bias_may_be_an_input():
    check(torch.addmm, random(5), random(3, 33), random(33, 5))
