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
from tt_dynamo.lowering import registry
from tt_dynamo.lowering.images import convolution as lowering
from tt_dynamo.runtime.program import Program


def image(channels=6, height=9, width=11, batch=2):
    return random(batch, channels, height, width)


def test_a_transposed_convolution_takes_its_image_as_it_lies_and_leaves_its_own_so():
    layers = nn.Conv2d(6, 32, 3), nn.ConvTranspose2d(32, 32, 2, stride=2), nn.Conv2d(32, 16, 3)
    report = check(rounded(nn.Sequential(*layers)), image(), roundings=3, cancels=True)
    assert calls(report)[:3] == ["conv2d", "conv_transpose2d", "conv2d"]
    launched = [operation.programs for operation in report.operations if operation.target == "ttnn.conv_transpose2d"]
    assert launched == [2]  # the halo, and the convolution


def test_a_transposed_convolution_in_slices_leaves_its_image_in_dram(monkeypatch):
    monkeypatch.setattr(lowering, "candidates", lambda *_: [{"block_height": 0, "double": False, "slices": 1}])
    report = check(rounded(nn.ConvTranspose2d(6, 10, 4)), image(height=17), cancels=True)
    assert calls(report) == ["conv_transpose2d"]


def test_nothing_moves_between_two_convolutions():
    report = check(rounded(nn.Sequential(nn.Conv2d(6, 8, 3), nn.Conv2d(8, 4, 3))), image(), roundings=2, cancels=True)
    assert unsharded(report) == ["conv2d", "conv2d"]


def test_zeros_around_an_image_are_the_convolutions_own():
    convolution = rounded(nn.Conv2d(6, 10, 3, stride=2, padding=1))
    report = check(lambda x: convolution(F.pad(x, (0, 1, 2, 0))), image(), cancels=True)
    assert unsharded(report) == ["conv2d"]


@pytest.mark.parametrize("value, sides", [(1.0, (1, 1, 1, 1)), (0.0, (-1, 1, 1, 1)), (0.0, (1, 1, 1, 1, 0, 1))])
def test_other_padding_is_not_the_convolutions_own(value, sides):
    convolution = rounded(nn.Conv2d(6 + (len(sides) > 4), 10, 3))
    outputs, _ = compiled(lambda x: convolution(F.pad(x, sides, value=value)), image())
    torch.testing.assert_close(outputs, convolution(F.pad(image(), sides, value=value)), rtol=0.01, atol=0.02)


def test_constants_are_prepared_as_they_go_up():
    report = check(rounded(nn.Conv2d(6, 10, 3)), image(), cancels=True)
    assert "prepare_conv" not in report.code
    assert report.weight_bytes >= 2 * (10 * 6 * 3 * 3 + 10)


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
    assert unsharded(report) == ["conv2d"]


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


def test_what_ttnn_refuses_falls_back_in_its_words(monkeypatch):
    def refuse(ttnn, *operands, **options):
        raise Refused("ttnn.conv2d: no kernel of this size")

    refusing = dataclasses.replace(registry.find(operators.conv2d), function=refuse)
    monkeypatch.setitem(registry._lowerings, operators.conv2d, refusing)
    fallback = falls_back(rounded(nn.Conv2d(6, 10, 3)), image())
    assert (fallback.kind, fallback.reason) == ("refused", "ttnn.conv2d: no kernel of this size")


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.Tanh(), nn.Sigmoid()], ids=str)
def test_an_activation_is_part_of_the_convolution(activation):
    report = check(rounded(nn.Sequential(nn.Conv2d(6, 10, 3), activation)), image(), roundings=2, cancels=True)
    assert unsharded(report) == ["conv2d"]


def test_an_activation_that_ttnn_does_not_fuse_is_a_call_on_the_image_as_it_lies():
    report = check(rounded(nn.Sequential(nn.Conv2d(6, 10, 3), nn.Hardswish())), image(), roundings=3, cancels=True)
    assert unsharded(report) == ["conv2d", "hardswish"]


@pytest.mark.parametrize("activation, scale", [(F.relu, 1), (F.relu6, 9), (F.silu, 1), (torch.tanh, 1)])
def test_a_residual_and_its_activation_are_one_call(activation, scale):
    class Residual(nn.Sequential):
        def forward(self, x):
            y = self[0](x)
            return activation(self[1](y) + y)

    model = rounded(Residual(nn.Conv2d(6, 10, 3), nn.Conv2d(10, 10, 3, padding=1)))
    report = check(model, image() * scale, roundings=3, cancels=True)
    assert unsharded(report) == ["conv2d", "conv2d", "add"]


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
