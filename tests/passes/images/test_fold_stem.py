"""The first convolution reads squares of pixels as channels, where enough cores have channels of images to fold."""

import pytest
import torch
from captured import Captured, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, shape_of
from tt_dynamo.ir.operators.image import folding_cores
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.images.stem import fold_stem

CORES = 8  # two images of four channels


def folded(convolution: nn.Module, *shape: int, cores: int = CORES) -> tuple[Captured, int]:
    graph = capture(convolution, random(*shape))
    graph.context.cores = cores
    return graph, graph.apply(fold_stem, exact=False)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        (7, 2, 3, 16),
        (3, 2, 1, 16),
        (11, 4, 2, 20),
        (5, 3, 1, 10),
        ((7, 3), 2, (3, 1), (16, 20)),
        (4, 4, 2, 12),
        (1, 2, 0, 8),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_kernels_of_every_size(kernel, stride, padding, size, channels):
    height, width = size if isinstance(size, tuple) else (size, size)
    graph, changed = folded(nn.Conv2d(channels, 6, kernel, stride, padding), 2, channels, height, width)
    assert changed == 1
    image, weight, *_, steps, around = (graph.only(aten.convolution.default)).args[:5]
    assert (steps, around) == ([1, 1], [0, 0])
    assert shape_of(image)[1] == shape_of(weight)[1] == 4 * stride**2


def test_the_squares_reach_the_convolution_without_a_move():
    graph, _ = folded(nn.Conv2d(3, 6, 7, 2, 3), 2, 3, 16, 16)
    graph.apply(channels_last, exact=False)
    assert graph.only(operators.conv2d).args[0] is graph.only(operators.space_to_depth)


@pytest.mark.parametrize(
    ("convolution", "shape"),
    [
        (nn.Conv2d(3, 6, 3, padding=1), (2, 3, 16, 16)),  # no squares
        (nn.Conv2d(3, 6, 3, (2, 1), 1), (2, 3, 16, 16)),
        (nn.Conv2d(3, 6, 3, 2, dilation=2), (2, 3, 16, 16)),
        (nn.Conv2d(4, 6, 3, 2, 1, groups=2), (2, 4, 16, 16)),
        (nn.Conv2d(3, 6, 3, 2, 1), (2, 3, 15, 16)),  # a row of pixels that is in no square
        (nn.Conv2d(8, 6, 3, 2, 1), (2, 8, 16, 16)),  # rows that are moved as they are
        (nn.ConvTranspose2d(3, 6, 4, 2, 1), (2, 3, 16, 16)),
        (nn.Conv1d(3, 6, 3, 2, 1), (2, 3, 16)),
    ],
)
def test_others_stay(convolution, shape):
    assert folded(convolution, *shape)[1] == 0


def test_few_images_stay_on_many_cores():
    assert folded(nn.Conv2d(3, 6, 3, 2, 1), 1, 3, 16, 16, cores=2 * CORES)[1] == 0


def test_no_images_stay():
    assert folded(nn.Conv2d(3, 6, 3, 2, 1), 0, 3, 16, 16)[1] == 0


def test_what_the_model_computed_stays_and_so_does_all_where_the_cores_are_not_known():
    behind = nn.Sequential(nn.Sigmoid(), nn.Conv2d(3, 6, 3, 2, 1))
    assert folded(behind, 2, 3, 16, 16)[1] == 0
    assert folded(nn.Conv2d(3, 6, 3, 2, 1), 2, 3, 16, 16, cores=0)[1] == 0


def test_a_weight_that_is_an_input_stays():
    graph = capture(lambda x, w: torch.conv2d(x, w, None, 2, 1), random(2, 3, 16, 16), random(6, 3, 3, 3))
    graph.context.cores = CORES
    assert graph.apply(fold_stem) == 0


@pytest.mark.parametrize(
    ("planes", "cores", "expected"), [(64, 64, 64), (4, 64, 4), (128, 64, 64), (96, 64, 48), (64, 110, 64)]
)
def test_each_core_folds_as_many_planes(planes, cores, expected):
    assert folding_cores(planes, cores) == expected
