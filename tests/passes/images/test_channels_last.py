"""Convolutions and pools are written channels last, and nothing moves between two of them."""

import pytest
import torch
import torch.nn.functional as F
from captured import Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.images.channels_last import channels_last
from tt_dynamo.passes.normalize.canonicalize import canonicalize

MOVES = (aten.permute.default, aten.reshape.default)


def rewritten(model, *inputs):
    graph = capture(model, *inputs)
    return graph, graph.apply(canonicalize, channels_last, exact=False)


IMAGE = random(2, 6, 9, 11)

CASES = {
    "convolution": (nn.Conv2d(6, 4, 3, stride=2, padding=(1, 2)), IMAGE, operators.conv2d),
    "convolution to the same size": (nn.Conv2d(6, 4, (2, 4), padding="same"), IMAGE, operators.conv2d),
    "grouped convolution": (nn.Conv2d(6, 4, 3, groups=2, bias=False), IMAGE, operators.conv2d),
    "convolution of a signal": (nn.Conv1d(6, 4, 3, stride=2, padding=1), random(2, 6, 15), operators.conv2d),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1), IMAGE, operators.conv_transpose2d),
    "transposed signal": (nn.ConvTranspose1d(6, 4, 3, 2), random(2, 6, 15), operators.conv_transpose2d),
    "maxima": (nn.MaxPool2d(3, 2, 1, ceil_mode=True), IMAGE, operators.max_pool2d),
    "maxima without a batch": (nn.MaxPool2d(2), IMAGE[0], operators.max_pool2d),
    "adaptive maxima": (nn.AdaptiveMaxPool2d((3, 1)), IMAGE, operators.max_pool2d),
    "means": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE, operators.avg_pool2d),
    "adaptive means": (nn.AdaptiveAvgPool2d((3, 11)), IMAGE, operators.avg_pool2d),
}


@pytest.mark.parametrize("name", CASES)
def test_what_ttnn_has_is_written_channels_last(name):
    model, x, target = CASES[name]
    graph, changed = rewritten(model, x)
    assert changed == 1
    assert graph.only(target).args[0].meta["val"].shape[:2] == (1, 1)


def test_nothing_moves_between_them():
    model = nn.Sequential(nn.Conv2d(6, 8, 3), nn.MaxPool2d(2), nn.ConvTranspose2d(8, 4, 2))
    graph, changed = rewritten(model, IMAGE)
    assert changed == 3
    found = graph.calls(operators.conv2d, operators.max_pool2d, operators.conv_transpose2d)
    assert [node.args[0] for node in found[1:]] == found[:-1]


@pytest.mark.parametrize("pads", [(0, 1, 2, 0), (3, 3), (0, 0, 0, 1)], ids=str)
def test_zeros_around_an_image_become_the_convolutions_own(pads):
    graph, _ = rewritten(Module(nn.Conv2d(6, 4, 3, padding=1), forward=lambda s, x: s.p0(F.pad(x, pads))), IMAGE)
    left, right, top, bottom = (*pads, 0, 0)[:4]
    assert graph.only(operators.conv2d).args[5] == [top + 1, bottom + 1, left + 1, right + 1]
    assert not graph.calls(aten.constant_pad_nd.default)


@pytest.mark.parametrize(
    "pad",
    [
        lambda x: F.pad(x, (1, 1), value=1.0),
        lambda x: F.pad(x, (1, -1)),
        lambda x: F.pad(x, (0, 0, 0, 0, 0, 1))[:, 1:],
    ],
)
def test_other_padding_stays(pad):
    graph, _ = rewritten(Module(nn.Conv2d(6, 4, 3), forward=lambda s, x: s.p0(pad(x))), IMAGE)
    assert graph.only(operators.conv2d).args[5] == [0, 0, 0, 0]


def test_a_padded_image_that_something_else_reads_stays():
    def forward(s, x):
        padded = F.pad(x, (1, 1, 1, 1))
        return s.p0(padded), padded.relu()

    graph, _ = rewritten(Module(nn.Conv2d(6, 4, 3), forward=forward), IMAGE)
    assert graph.calls(aten.constant_pad_nd.default)


STAYING = {
    "transposed convolutions of volumes in groups": (nn.ConvTranspose3d(2, 4, 2, groups=2), random(1, 2, 3, 4, 5)),
    "windows of volumes that differ": (nn.AdaptiveMaxPool3d(2), random(1, 2, 3, 4, 4)),
    "indices": (lambda x: F.max_pool2d(x, 2, return_indices=True), IMAGE),
    "indices alone": (lambda x: F.max_pool2d(x, 2, return_indices=True)[1], IMAGE),
    "double precision": (lambda x: F.avg_pool2d(x, 2), IMAGE.double()),
    "integers": (lambda x: F.max_pool2d(x, 2), (IMAGE * 10).long()),
    "constants": (Module(nn.Parameter(IMAGE), forward=lambda s, x: x + F.avg_pool2d(s.p0, 9)), random(1)),
    "images without elements": (lambda x: F.avg_pool2d(x, 2), random(0, 6, 9, 11)),
}


@pytest.mark.parametrize("name", STAYING)
def test_what_ttnn_has_not_stays(name):
    graph, changed = rewritten(*STAYING[name])
    assert changed == 0


@pytest.mark.parametrize("model", [nn.Conv2d(6, 4, 1), nn.Conv2d(6, 4, 1, stride=2, bias=False)], ids=str)
def test_a_convolution_of_one_pixel_is_a_linear(model):
    graph, _ = rewritten(model, random(3, 6, 1, 1))
    assert graph.only(operators.linear).args[0].meta["val"].shape == (3, 1, 1, 6)


@pytest.mark.parametrize(
    "model", [nn.Conv2d(6, 4, 1, padding=1), nn.Conv2d(6, 4, 1, groups=2), nn.ConvTranspose2d(6, 4, 1)], ids=str
)
def test_other_convolutions_of_one_pixel_are_none(model):
    graph, _ = rewritten(model, random(3, 6, 1, 1))
    assert not graph.calls(operators.linear)


def test_the_operations_are_torchs():
    x = torch.randn(2, 6, 9, 11)
    for model, target, options in [
        (nn.Conv2d(6, 4, 3, 2, 1), operators.conv2d, ([2, 2], [1, 1, 1, 1], [1, 1], 1)),
        (nn.Conv2d(6, 4, 3, 2, 1), operators.conv2d, ([2, 2], [1, 2, 1, 0], [1, 1], 1)),
    ]:
        top, bottom, left, right = options[1]
        padded = F.pad(x, (left - 1, right - 1, top - 1, bottom - 1))
        flat = operators.to_flat(x)
        ours = target(flat, model.weight, model.bias.reshape(1, 1, 1, -1), [2, 9, 11], *options)
        torch.testing.assert_close(ours, operators.to_flat(model(padded)))
