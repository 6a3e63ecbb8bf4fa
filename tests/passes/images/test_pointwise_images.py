"""What follows a convolution takes its image as it lies, channels last."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.images.norms import split_norm_affine
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.constants import fold_constants

IMAGE = random(2, 6, 9, 11)


def between(function, *members, image=IMAGE):
    """The graph of a convolution, `function` and another convolution; `function` reads (module, image)."""
    model = Module(
        nn.Conv2d(6, 8, 3), nn.LazyConv2d(4, 3), *members, forward=lambda m, x: m.p1(function(m, m.p0(x)))
    ).eval()
    with torch.no_grad():
        model(image)
    graph = capture(model, image)
    graph.apply(canonicalize, split_norm_affine, channels_last, exact=False)
    graph.apply(fold_constants, exact=False)
    return graph


def moves(graph):
    return len(graph.calls(aten.permute.default))


def excite(m, y):
    return y * m.p2(y.mean((2, 3), keepdim=True)).sigmoid()


def by_pixel(function):
    """What a function makes of an image whose channels stand last."""
    return lambda m, y: function(m, y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


FLOWING = {
    "pixels of channels": (lambda m, y: F.pixel_shuffle(y, 2), ()),
    "channels of pixels": (lambda m, y: F.pixel_unshuffle(F.avg_pool2d(y, 2, 1), 2), ()),
    "channels in another order": (lambda m, y: F.channel_shuffle(y, 4), ()),
    "a norm of each pixel": (by_pixel(lambda m, y: m.p2(y)), (nn.LayerNorm(8),)),
    "linears of each pixel": (by_pixel(lambda m, y: m.p3(F.gelu(m.p2(y)) * 2)), (nn.Linear(8, 9), nn.Linear(9, 8))),
    "a residual of each pixel": (lambda m, y: by_pixel(lambda m, y: y + y.relu())(m, y) + y, ()),
    "means where channels stand last": (by_pixel(lambda m, y: (y * y.mean((1, 2), keepdim=True))[..., 1:5]), ()),
    "activations": (lambda m, y: F.hardswish(F.relu6(y)).sigmoid(), ()),
    "a residual": (lambda m, y: torch.relu(y + y * 2), ()),
    "channels of several": (lambda m, y: torch.cat([y, y.relu()], 1), ()),
    "some channels": (lambda m, y: y[:, 2:5], ()),
    "parts of channels": (lambda m, y: torch.cat([*y.split([3, 1, 4], 1)[::-1], *y.chunk(3, 1)], 1), ()),
    "a batch norm": (lambda m, y: m.p2(y.relu()), (nn.BatchNorm2d(8),)),
    "weights by image and channel": (excite, (nn.Conv2d(8, 8, 1),)),
    "gates by pixel": (lambda m, y: y * y[:, :1].sigmoid(), ()),
    "means by gates": (lambda m, y: y + y.mean((2, 3), keepdim=True).relu() * y[:, 1:2], ()),
    "slopes by channel": (lambda m, y: m.p2(y), (nn.PReLU(8),)),
    "a pool": (lambda m, y: F.max_pool2d(y, 2), ()),
}


@pytest.mark.parametrize("name", FLOWING)
def test_nothing_moves_between_two_convolutions(name):
    function, members = FLOWING[name]
    assert moves(between(function, *members)) == 2  # at the model's input, and at its output


@pytest.mark.parametrize("batch", [1, 3])
def test_an_excited_image_is_not_divided_by_its_batch(batch):
    graph = between(excite, nn.Conv2d(8, 8, 1), image=random(batch, 6, 9, 11))
    (product,) = graph.calls(aten.mul.Tensor)
    assert product.args[0] is graph.calls(operators.conv2d)[0]
    assert len(graph.calls(aten.embedding.default)) == (batch > 1)


def test_excitations_of_images_of_one_size_read_one_constant():
    graph = between(lambda m, y: excite(m, excite(m, y)), nn.Conv2d(8, 8, 1))
    assert len({found.args[1].target for found in graph.calls(aten.embedding.default)}) == 1


def test_what_reads_means_of_an_image_is_a_linear():
    graph = between(excite, nn.Conv2d(8, 8, 1))
    assert graph.only(operators.linear).args[0] is graph.only(operators.avg_pool2d)


@pytest.mark.parametrize("rows", [9, 10], ids=["rows", "as many rows as channels"])
def test_an_image_without_a_batch_is_none_of_signals_beside_one_with(rows):
    positions = random(8, rows - 2, 9)
    assert moves(between(lambda m, y: y + positions, image=random(1, 6, rows, 11))) == 2


STAYING = {
    "sums over rows": lambda m, y: y + y.sum(2, keepdim=True),
    "a mask of pixels": lambda m, y: y * torch.ones(7, 9),
    "columns": lambda m, y: y[..., 1:],
    "rows side by side": lambda m, y: torch.cat([y, y], 2),
    "a norm of columns": lambda m, y: F.layer_norm(y, [9]),
}


@pytest.mark.parametrize("name", STAYING)
def test_what_depends_on_the_layout_stays(name):
    assert moves(between(STAYING[name])) > 2


def test_a_linear_reads_pixels_in_their_order():
    model = nn.Sequential(nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(4 * 7 * 9, 5))
    graph = capture(model, IMAGE)
    graph.apply(canonicalize, channels_last, exact=False)
    graph.apply(fold_constants, exact=False)
    assert moves(graph) == 1  # that of the input: what is left is a linear of constants


@pytest.mark.parametrize("channels, side", [(32, 8), (33, 8), (32, 9)])
def test_a_group_norm_flows_where_channels_and_pixels_fill_tiles_or_a_group_is_an_image(channels, side):
    model = nn.Sequential(
        nn.Conv2d(3, channels, 1), nn.GroupNorm(1 + channels % 2 * 2, channels), nn.ReLU(), nn.Conv2d(channels, 4, 1)
    )
    graph = capture(model, random(2, 3, side, side))
    graph.apply(canonicalize, split_norm_affine, channels_last, exact=False)
    assert len(graph.calls(operators.group_norm)) == (channels % 32 == 0 and side == 8)
    assert moves(graph) == 2 + 2 * (channels != 32)  # of a whole image, sums flow too


def test_signals_flow_as_images_do():
    model = nn.Sequential(nn.Conv1d(6, 8, 3), nn.GELU(), nn.Conv1d(8, 4, 3))
    graph = capture(model, random(2, 6, 15))
    graph.apply(canonicalize, channels_last, exact=False)
    assert moves(graph) == 2
    assert graph.calls(operators.conv2d)[1].args[0] is graph.only(aten.gelu.default)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_an_instance_norm_is_sums_over_pixels(batch, affine):
    norm = nn.GroupNorm(8, 8, affine=affine)
    graph = between(lambda m, y: torch.relu(m.p2(y)), norm, image=random(batch, 6, 9, 11))
    assert moves(graph) == 2 and not graph.calls(operators.group_norm, aten.group_norm.default)
    assert graph.only(aten.mean.dim).args[1] == graph.only(aten.var.correction).args[1] == [2]
