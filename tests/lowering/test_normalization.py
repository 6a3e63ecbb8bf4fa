"""Layer norm and softmax."""

import pytest
import torch
from compiled import calls, check, random, rounded
from torch import nn


@pytest.fixture
def x():
    return random(2, 3, 33)


@pytest.mark.parametrize("shape", [(8,), (33,), (64,), (3, 33), (2, 3, 33)], ids=str)
def test_a_layer_norm_runs_over_any_number_of_trailing_dimensions(shape):
    norm = rounded(nn.LayerNorm(shape))
    norm.weight.data.copy_(random(*shape, mean=1.0))
    norm.bias.data.copy_(random(*shape))
    report = check(norm, random(*(2, 3, 33)[: 3 - len(shape)], *shape), cancels=True)
    assert calls(report).count("layer_norm") == 1
    assert len(calls(report)) == (1 if len(shape) == 1 else 5)


@pytest.mark.parametrize("options", [{"elementwise_affine": False}, {"bias": False}, {"eps": 0.5}], ids=str)
def test_a_layer_norm_without_weight_or_bias_or_with_its_own_epsilon(options, x):
    assert calls(check(rounded(nn.LayerNorm(33, **options)), x)) == ["layer_norm"]


@pytest.mark.parametrize("shape", [(33,), (1, 33), (2, 2, 3, 33)], ids=str)
def test_a_layer_norm_of_values_of_any_rank(shape):
    check(rounded(nn.LayerNorm(33)), random(*shape))


def test_a_residual_joins_the_kernel_of_its_norm(x):
    norm = rounded(nn.LayerNorm(33))
    report = check(lambda x, y: norm(x + y), x, random(2, 3, 33, mean=1.0))
    assert calls(report) == ["layer_norm"]
    assert report.device_programs == 1


@pytest.mark.parametrize("dim", [-1, 0, 1, 2])
def test_a_softmax_runs_over_any_dimension(dim, x):
    assert calls(check(lambda x: torch.softmax(x, dim), x)) == ["softmax"]


def test_a_softmax_of_large_numbers_does_not_overflow(x):
    check(lambda x: torch.softmax(x, -1), x * 256)


def test_a_softmax_of_what_is_masked_is_zero_there(x):
    check(lambda x: torch.softmax(x.masked_fill(torch.relu(x) > 0.5, float("-inf")), -1), x)
