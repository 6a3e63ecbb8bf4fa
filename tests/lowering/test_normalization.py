"""Norms of every kind, and what training keeps of them."""

import pytest
import torch
from compiled import calls, check, compiled, positive, random, rounded
from torch import nn
from torch.nn import functional


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


class Pixels(nn.Module):
    """A block of ConvNeXt: what follows its convolution works on each pixel, channels last."""

    def __init__(self):
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.LayerNorm(6)
        self.wide, self.narrow = nn.Linear(6, 9), nn.Linear(9, 6)
        self.scale = nn.Parameter(torch.ones(6, 1, 1))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(functional.gelu(self.wide(y)))
        return self.depthwise(x + self.scale * y.permute(0, 3, 1, 2))


def test_a_norm_of_pixels_takes_the_image_as_a_convolution_leaves_it():
    found = calls(check(rounded(Pixels()), random(2, 6, 9, 11), roundings=9, cancels=True))
    first, last = (index for index, call in enumerate(found) if call == "conv2d")
    assert found[first + 1 : last] == ["to_memory_config", "layer_norm", "linear", "linear", "multiply", "add"]


# --- norms over channels --------------------------------------------------------------------------------------------


def affine(module):
    """The module with weights, biases and statistics that bfloat16 represents and that are far from 1 and 0."""
    module = rounded(module)
    for name, buffer in module.named_buffers():
        if name.endswith("var"):
            buffer.copy_(positive(*buffer.shape))
        elif name.endswith("mean"):
            buffer.copy_(random(*buffer.shape))
    for parameter in module.parameters():
        parameter.data.copy_(random(*parameter.shape, mean=1.0))
    return module


@pytest.mark.parametrize(
    "norm, shape",
    [
        (nn.BatchNorm1d(6), (5, 6)),
        (nn.BatchNorm1d(6), (5, 6, 7)),
        (nn.BatchNorm2d(6), (2, 6, 4, 5)),
        (nn.BatchNorm2d(6, affine=False), (2, 6, 4, 5)),
        (nn.BatchNorm3d(6), (2, 6, 3, 4, 5)),
        (nn.InstanceNorm2d(6, affine=True, track_running_stats=True), (2, 6, 4, 5)),
    ],
    ids=str,
)
def test_a_batch_norm_in_evaluation_is_one_kernel(norm, shape):
    report = check(affine(norm), random(*shape), roundings=3, cancels=True)
    assert calls(report) == ["addcmul"]


def test_a_batch_norm_by_statistics_that_are_computed():
    def normalize(x, mean, variance, weight, bias):
        return functional.batch_norm(torch.relu(x), mean, torch.exp(variance), weight, bias)

    operands = [random(6), random(6), random(6), random(6)]
    check(normalize, random(2, 6, 4, 5), *operands, roundings=6, cancels=True)


@pytest.mark.parametrize("groups, affine_", [(1, True), (3, True), (6, True), (3, False)])
@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 7), (2, 6, 4, 5), (2, 6, 3, 4, 5)], ids=str)
def test_a_group_norm_of_any_rank_and_number_of_groups(shape, groups, affine_):
    if groups == 6 and len(shape) == 2:
        pytest.skip("eager torch refuses to normalize single numbers")
    check(affine(nn.GroupNorm(groups, 6, affine=affine_)), random(*shape), roundings=3, cancels=True)


@pytest.mark.parametrize(
    "norm, shape",
    [
        (nn.InstanceNorm1d(6), (2, 6, 9)),
        (nn.InstanceNorm2d(6), (2, 6, 4, 5)),
        (nn.InstanceNorm2d(6), (6, 4, 5)),
        (nn.InstanceNorm2d(6, affine=True), (2, 6, 4, 5)),
        (nn.InstanceNorm3d(6), (2, 6, 3, 4, 5)),
        (nn.BatchNorm2d(6, track_running_stats=False), (2, 6, 4, 5)),
    ],
    ids=str,
)
def test_norms_by_the_statistics_of_their_input(norm, shape):
    report = check(affine(norm), random(*shape), roundings=3, cancels=True)
    assert "layer_norm" in calls(report)


# --- statistics that training keeps ---------------------------------------------------------------------------------

W, B = random(6), random(6, mean=1.0)
LAST = random(5)

WITH_STATISTICS = {
    "layer norm": lambda x: torch.native_layer_norm(torch.relu(x), [5], LAST, LAST, 1e-5),
    "layer norm over all": lambda x: torch.native_layer_norm(torch.relu(x), [2, 6, 4, 5], None, None, 1e-5),
    "group norm": lambda x: torch.native_group_norm(torch.relu(x), W, B, 2, 6, 20, 3, 1e-5),
    "group norm without weight": lambda x: torch.native_group_norm(torch.relu(x), None, None, 2, 6, 20, 3, 1e-5),
    "batch norm": lambda x: torch._native_batch_norm_legit(torch.relu(x), W, B, True, 0.1, 1e-5),
    "batch norm without bias": lambda x: torch._native_batch_norm_legit(torch.relu(x), W, None, True, 0.1, 1e-5),
}


@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_a_norm_gives_its_mean_and_deviation_where_they_are_read(name):
    check(WITH_STATISTICS[name], random(2, 6, 4, 5), roundings=3, cancels=True)


def test_running_statistics_are_float32_on_the_device():
    mean, variance = torch.full((6,), 100.0), torch.full((6,), 100.0)
    x = random(2, 6, 4, 5, mean=50.0)

    def train(x, mean, variance):
        return torch.ops.aten._native_batch_norm_legit_functional(x, None, None, mean, variance, True, 0.001, 1e-5)[3:]

    outputs, report = compiled(train, x, mean, variance)
    assert not report.fallbacks
    for ours, eager in zip(outputs, train(x, mean, variance), strict=True):
        torch.testing.assert_close(ours - 100, eager - 100, rtol=0.02, atol=0)


# --- root mean square -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(33,), (5, 33), (2, 3, 33), (2, 2, 3, 2, 33)], ids=str)
@pytest.mark.parametrize("options", [{}, {"elementwise_affine": False}, {"eps": 0.5}], ids=str)
def test_an_rms_norm_is_one_call(shape, options):
    assert calls(check(affine(nn.RMSNorm(33, **options)), random(*shape))) == ["rms_norm"]


def test_an_rms_norm_over_several_dimensions():
    report = check(lambda x, w: functional.rms_norm(torch.relu(x), [3, 33], w), random(2, 3, 33), random(3, 33))
    assert calls(report).count("rms_norm") == 1


# --- what is made of other operations -------------------------------------------------------------------------------


ROW, COLUMN, OTHER = random(1, 33), random(4, 1), random(4, 33, mean=0.5)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: functional.normalize(torch.relu(x), dim=-1),
        lambda x: functional.normalize(torch.relu(x), dim=0, p=1),
        lambda x: functional.cosine_similarity(torch.relu(x), OTHER),
        lambda x: torch._weight_norm(torch.relu(x), COLUMN, 0),
        lambda x: torch._weight_norm(torch.relu(x), ROW, 1),
    ],
    ids=["normalize", "normalize by sums", "cosine similarity", "weight norm of rows", "weight norm of columns"],
)
def test_norms_of_vectors(function):
    check(function, random(4, 33), roundings=6, cancels=True)


def test_a_weight_norm_of_parameters_is_computed_once():
    layer = nn.utils.parametrizations.weight_norm(rounded(nn.Linear(33, 5)))
    assert calls(check(layer, random(3, 33), roundings=2, cancels=True)) == ["linear"]
