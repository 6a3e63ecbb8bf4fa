"""Convolutions of images and signals: one TTNN call each, with weights that were prepared as they went up."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from compiled import BOARD, calls, check, compiled, falls_back, random, rounded, unsharded
from torch import nn

import tt_dynamo
from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused
from tt_dynamo.lowering import convolution as lowering
from tt_dynamo.lowering import registry
from tt_dynamo.runtime.program import Program

MOVED = ["permute", "reshape"]


def image(channels=6, height=9, width=11, batch=2):
    return random(batch, channels, height, width)


CONVOLUTIONS = {
    "of a larger kernel": nn.Conv2d(6, 10, 5),
    "of one pixel": nn.Conv2d(6, 10, 1),
    "of rows and columns apart": nn.Conv2d(6, 10, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    "with padding": nn.Conv2d(6, 10, 3, padding=1),
    "with more padding than half of its kernel": nn.Conv2d(6, 10, 3, padding=3),
    "with strides": nn.Conv2d(6, 10, 3, stride=2, padding=1),
    "with strides beyond its kernel": nn.Conv2d(6, 10, 1, stride=2),
    "with dilation": nn.Conv2d(6, 10, 3, padding=2, dilation=2),
    "in groups": nn.Conv2d(6, 9, 3, groups=3),
    "of each channel by itself": nn.Conv2d(6, 6, 7, padding=3, groups=6),
    "of each channel by itself into two": nn.Conv2d(6, 12, 3, groups=6),
    "without bias": nn.Conv2d(6, 10, 3, bias=False),
    "to the same size by unequal padding": nn.Conv2d(6, 10, (2, 4), padding="same"),
}


@pytest.mark.parametrize("convolution", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_a_convolution_is_one_call(convolution):
    report = check(rounded(convolution), image(), cancels=True)
    assert unsharded(report) == [*MOVED, "conv2d", *reversed(MOVED)]


def test_a_convolution_that_fills_its_image():
    assert "conv2d" in calls(check(rounded(nn.Conv2d(6, 10, (9, 11))), image(), cancels=True))


@pytest.mark.parametrize("channels", [1, 3, 16, 65])
def test_channels_need_fill_no_tile(channels):
    check(rounded(nn.Conv2d(channels, channels + 1, 3)), image(channels), cancels=True)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv1d(6, 9, 3, stride=2, padding=1),
        nn.Conv1d(6, 12, 5, dilation=2, groups=3),
        nn.Conv1d(6, 6, 4, padding="same", groups=6),
    ],
    ids=str,
)
def test_a_signal_is_an_image_of_one_row(convolution):
    report = check(rounded(convolution), random(2, 6, 30), cancels=True)
    assert "conv2d" in calls(report)


TRANSPOSED = {
    "of a larger kernel": nn.ConvTranspose2d(6, 10, 4),
    "that doubles an image": nn.ConvTranspose2d(6, 10, 2, stride=2),
    "with padding on one side of the result": nn.ConvTranspose2d(6, 10, 3, 2, 1, output_padding=1),
    "of rows and columns apart": nn.ConvTranspose2d(6, 10, (3, 2), (2, 1), (1, 0)),
    "with dilation": nn.ConvTranspose2d(6, 10, 3, dilation=2),
    "in groups": nn.ConvTranspose2d(6, 9, 3, 2, groups=3),
    "without bias": nn.ConvTranspose2d(6, 10, 3, bias=False),
}


@pytest.mark.parametrize("convolution", TRANSPOSED.values(), ids=TRANSPOSED.keys())
def test_a_transposed_convolution_is_one_call(convolution):
    report = check(rounded(convolution), image(), cancels=True)
    assert unsharded(report) == [*MOVED, "conv_transpose2d", *reversed(MOVED)]


def test_a_transposed_convolution_takes_its_image_as_it_lies_and_leaves_its_own_so():
    layers = nn.Conv2d(6, 32, 3), nn.ConvTranspose2d(32, 32, 2, stride=2), nn.Conv2d(32, 16, 3)
    report = check(rounded(nn.Sequential(*layers)), image(), roundings=3, cancels=True)
    between = calls(report)[len(MOVED) :]
    assert between[:3] == ["conv2d", "conv_transpose2d", "conv2d"]
    launched = [operation.programs for operation in report.operations if operation.target == "ttnn.conv_transpose2d"]
    assert launched == [2]  # the halo, and the convolution


def test_a_transposed_convolution_in_slices_leaves_its_image_in_dram(monkeypatch):
    monkeypatch.setattr(lowering, "candidates", lambda *_: [{"block_height": 0, "double": False, "slices": 1}])
    report = check(rounded(nn.ConvTranspose2d(6, 10, 4)), image(height=17), cancels=True)
    assert calls(report) == [*MOVED, "conv_transpose2d", *reversed(MOVED)]


def test_a_transposed_convolution_of_a_signal():
    check(rounded(nn.ConvTranspose1d(6, 9, 3, 2, 1, output_padding=1)), random(2, 6, 30), cancels=True)


def test_an_image_without_a_batch():
    check(rounded(nn.Conv2d(6, 10, 3)), image()[0], cancels=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_floats(dtype):
    check(rounded(nn.Conv2d(6, 10, 3)).to(dtype), image().to(dtype), roundings=2, cancels=True)


def test_an_image_that_lies_channels_last():
    check(rounded(nn.Conv2d(6, 10, 3)), image().to(memory_format=torch.channels_last), cancels=True)


def test_nothing_moves_between_two_convolutions():
    report = check(rounded(nn.Sequential(nn.Conv2d(6, 8, 3), nn.Conv2d(8, 4, 3))), image(), roundings=2, cancels=True)
    assert unsharded(report) == [*MOVED, "conv2d", "conv2d", *reversed(MOVED)]


def test_zeros_around_an_image_are_the_convolutions_own():
    convolution = rounded(nn.Conv2d(6, 10, 3, stride=2, padding=1))
    report = check(lambda x: convolution(F.pad(x, (0, 1, 2, 0))), image(), cancels=True)
    assert unsharded(report) == [*MOVED, "conv2d", *reversed(MOVED)]


@pytest.mark.parametrize("value, sides", [(1.0, (1, 1, 1, 1)), (0.0, (-1, 1, 1, 1)), (0.0, (1, 1, 1, 1, 0, 1))])
def test_other_padding_is_not_the_convolutions_own(value, sides):
    convolution = rounded(nn.Conv2d(6 + (len(sides) > 4), 10, 3))
    outputs, _ = compiled(lambda x: convolution(F.pad(x, sides, value=value)), image())
    torch.testing.assert_close(outputs, convolution(F.pad(image(), sides, value=value)), rtol=0.01, atol=0.02)


def test_constants_are_prepared_as_they_go_up():
    report = check(rounded(nn.Conv2d(6, 10, 3)), image(), cancels=True)
    assert "prepare_conv" not in report.code
    assert report.weight_bytes >= 2 * (10 * 6 * 3 * 3 + 10)


def test_weights_that_are_inputs_are_prepared_in_every_call():
    report = check(lambda x, w, b: F.conv2d(x, w, b), image(), random(10, 6, 3, 3), random(10), cancels=True)
    assert calls(report)[2:5] == ["prepare_conv_weights", "prepare_conv_bias", "conv2d"]


def test_weights_that_are_moved_for_a_convolution_are_moved_on_the_host():
    report = check(lambda x, w, b: F.conv1d(x, w.mT, b), random(2, 6, 30), random(10, 3, 6), random(10), cancels=True)
    assert "prepare_conv_weights" in calls(report)


def test_weights_that_are_computed_for_a_convolution_alone_are_computed_on_the_host():
    outputs, report = compiled(lambda x, w: F.conv2d(x, w.exp()), image(), random(10, 6, 3, 3))
    assert [(fallback.node, "computed there" in fallback.reason) for fallback in report.fallbacks] == [("exp", True)]
    assert "conv2d" in calls(report)
    torch.testing.assert_close(outputs, F.conv2d(image(), random(10, 6, 3, 3).exp()), rtol=0.02, atol=0.5)


def test_what_the_device_computes_for_others_too_is_convolved_with_on_the_host():
    def function(x, w):
        scaled = w.exp()
        return F.conv2d(x, scaled), scaled.mean()

    outputs, report = compiled(function, image(), random(10, 6, 3, 3))
    assert ["the device computes these" in fallback.reason for fallback in report.fallbacks] == [True]
    expected = function(image(), random(10, 6, 3, 3))
    torch.testing.assert_close(outputs, expected, rtol=0.02, atol=0.5)


def test_weights_computed_from_parameters_are_constants():
    class Standardized(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(x, (self.weight - self.weight.mean()).bfloat16().float(), self.bias)

    report = check(rounded(Standardized(6, 10, 3)), image(), cancels=True)
    assert unsharded(report) == [*MOVED, "conv2d", *reversed(MOVED)]


def test_two_convolutions_of_one_weight_hold_what_each_needs():
    weight = nn.Parameter(random(6, 6, 3, 3))
    model = nn.Module()
    model.weight, model.forward = weight, lambda x: F.conv2d(F.conv2d(x, weight, padding=1), weight, stride=2)
    report = check(model, image() * 0.25, roundings=2, cancels=True)
    assert calls(report).count("conv2d") == 2


def test_changed_weights_are_prepared_again():
    convolution = rounded(nn.Conv2d(6, 10, 3))
    torch._dynamo.reset()
    ours = torch.compile(convolution, backend="ttnn", dynamic=False)
    with torch.no_grad():
        before = ours(image())
        convolution.weight.mul_(2.0)
        convolution.bias.zero_()
        torch.testing.assert_close(ours(image()), convolution(image()), rtol=0.01, atol=0.02)
        assert not torch.allclose(before, ours(image()), atol=0.1)


def test_training_reads_the_gradients_of_eager_torch():
    def gradients(call, model):
        model.zero_grad()
        call(image()).square().sum().backward()
        return [parameter.grad for parameter in model.parameters()]

    model = rounded(nn.Sequential(nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2)))
    expected = gradients(model, model)
    torch._dynamo.reset()
    found = gradients(torch.compile(model, backend="ttnn", dynamic=False), model)
    for ours, eager in zip(found, expected, strict=True):
        assert (ours - eager).norm() < 0.02 * eager.norm()


def test_volumes_stay_on_the_host():
    fallback = falls_back(rounded(nn.Conv3d(3, 4, 2)), random(2, 3, 4, 5, 6))
    assert "3 dimensions" in fallback.reason


def test_integers_stay_on_the_host():
    x, weight = (image() * 1e6).long(), (random(4, 6, 3, 3) * 1e3).long()
    outputs, report = compiled(F.conv2d, x, weight)
    assert torch.equal(outputs, F.conv2d(x, weight))
    assert report.device_nodes == 0


def test_double_precision_stays_on_the_host():
    fallback = falls_back(nn.Conv2d(6, 10, 3).double(), image().double())
    assert "float64" in fallback.reason


def test_what_ttnn_refuses_falls_back_in_its_words(monkeypatch):
    def refuse(ttnn, *operands, **options):
        raise Refused("ttnn.conv2d: no kernel of this size")

    refusing = dataclasses.replace(registry.find(operators.conv2d), function=refuse)
    monkeypatch.setitem(registry._lowerings, operators.conv2d, refusing)
    fallback = falls_back(rounded(nn.Conv2d(6, 10, 3)), image())
    assert (fallback.kind, fallback.reason) == ("refused", "ttnn.conv2d: no kernel of this size")


def test_many_groups_of_many_channels_stay_on_the_host():
    fallback = falls_back(rounded(nn.Conv2d(4160, 4160, 1, groups=4160)), random(2, 4160, 2, 2))
    assert "49793" in fallback.reason


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.Tanh(), nn.Sigmoid()], ids=str)
def test_an_activation_is_part_of_the_convolution(activation):
    report = check(rounded(nn.Sequential(nn.Conv2d(6, 10, 3), activation)), image(), roundings=2, cancels=True)
    assert unsharded(report) == [*MOVED, "conv2d", *reversed(MOVED)]


def test_an_activation_that_ttnn_does_not_fuse_is_a_call_on_the_image_as_it_lies():
    report = check(rounded(nn.Sequential(nn.Conv2d(6, 10, 3), nn.Hardswish())), image(), roundings=3, cancels=True)
    assert unsharded(report) == [*MOVED, "conv2d", "hardswish", *reversed(MOVED)]


@pytest.mark.parametrize("activation, scale", [(F.relu, 1), (F.relu6, 9), (F.silu, 1), (torch.tanh, 1)])
def test_a_residual_and_its_activation_are_one_call(activation, scale):
    class Residual(nn.Sequential):
        def forward(self, x):
            y = self[0](x)
            return activation(self[1](y) + y)

    model = rounded(Residual(nn.Conv2d(6, 10, 3), nn.Conv2d(10, 10, 3, padding=1)))
    report = check(model, image() * scale, roundings=3, cancels=True)
    assert unsharded(report) == [*MOVED, "conv2d", "conv2d", "add", *reversed(MOVED)]


def test_a_convolution_whose_call_fails_is_made_again_by_itself(monkeypatch):
    torch._dynamo.reset()
    model = rounded(nn.Sequential(nn.Conv2d(6, 10, 3), nn.ReLU(), nn.Conv2d(10, 4, 3)))
    run = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD})
    with tt_dynamo.record() as reports, torch.no_grad():
        expected = run(image())

        def fail(*_):
            raise RuntimeError("the device is busy")

        monkeypatch.setattr(Program, "_current", fail)
        again = run(image())
    assert torch.equal(again, expected)
    assert not reports[0].fallbacks


def test_a_join_in_shards_that_ttnn_refuses_is_made_interleaved_where_a_call_failed(monkeypatch):
    class Join(nn.Sequential):
        def forward(self, x):
            return self[1](torch.cat([self[0](x), self[0](x + 1)], 1))  # 20 channels fill no tile

    torch._dynamo.reset()
    run = torch.compile(
        rounded(Join(nn.Conv2d(6, 10, 3), nn.Conv2d(20, 4, 3))),
        backend="ttnn",
        dynamic=False,
        options={"device": BOARD},
    )
    with tt_dynamo.record() as reports, torch.no_grad():
        expected = run(image())
        monkeypatch.setattr(Program, "_current", lambda *_: torch.tensor([]).item())
        again = run(image())
    assert torch.equal(again, expected)
    assert not reports[0].fallbacks
