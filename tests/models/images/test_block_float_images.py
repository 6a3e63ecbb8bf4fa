"""Convolutional networks in each preset: in which dtypes images and weights lie, and how near eager torch they are."""

import re

import pytest
import torch
from comparison import pcc
from image_networks import short_resnet

import tt_dynamo
import tt_dynamo.lowering.images.pixels
from tt_dynamo.ir.errors import Refused

BATCH = 16  # images whose channels all cores fold


def run(preset: str, batch: int = BATCH):
    torch.manual_seed(0)
    model, x = short_resnet().eval(), torch.randn(batch, 3, 64, 64)
    torch.compiler.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        ours = torch.compile(model, backend="ttnn", options={"device": "n150", "preset": preset})(x)
        return reports[0], pcc(ours, model(x))


def dtypes(code: str, argument: str) -> set[str]:
    """Those that convolutions are given as an argument: "dtype", of images, or "weights_dtype"."""
    return set(
        re.findall(rf"\b{argument}=ttnn\.(\w+)", "\n".join(re.findall(r".*(?:conv2d\(|Conv2dConfig\().*", code)))
    )


@pytest.mark.parametrize(
    ("preset", "images", "weights", "nearness"),
    [
        pytest.param("accuracy", {"bfloat16"}, {"bfloat16"}, 0.9995, marks=pytest.mark.slow),
        pytest.param("balanced", {"bfloat16"}, {"bfloat8_b"}, 0.999, marks=pytest.mark.slow),
        # tt-metal asks as much of its own ResNet-50.
        pytest.param("performance", {"bfloat8_b"}, {"bfloat8_b"}, 0.98, marks=pytest.mark.slow),
    ],
)
def test_images_and_weights_are_as_the_preset_says(preset, images, weights, nearness):
    report, reached = run(preset)
    assert not report.fallbacks
    assert dtypes(report.code, "dtype") == images
    widened = {"bfloat16"} if any("its weight is bfloat16, TTNN refused" in note for note in report.notes) else set()
    assert dtypes(report.code, "weights_dtype") == weights | widened
    assert reached >= nearness


@pytest.mark.slow
def test_the_images_of_a_batch_are_folded_and_those_of_one_are_moved():
    report, _ = run("accuracy")
    assert "use_transpose_as_fold=True" in report.code
    assert "ttnn.permute" not in report.code
    report, _ = run("accuracy", batch=1)
    assert "ttnn.fold" not in report.code


@pytest.mark.slow
def test_images_whose_fold_ttnn_refuses_are_moved(monkeypatch: pytest.MonkeyPatch):
    def no_cores(*_):
        raise Refused("no cores for it")

    monkeypatch.setattr(tt_dynamo.lowering.images.pixels, "first_cores", no_cores)
    report, reached = run("accuracy")
    assert "the pass fold_stem was left out: TTNN refused its fold: no cores for it" in report.notes
    assert not report.fallbacks and not report.decomposed
    assert "ttnn.fold" not in report.code
    assert reached >= 0.9995
