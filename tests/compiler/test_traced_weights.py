"""Weights that TTNN lays out for itself are prepared once, shared, and renewed when they change."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import Graph, GraphModule

import tt_dynamo
from tt_dynamo.compiler.traced_weights import bind_weights
from tt_dynamo.devices import Device, open_device
from tt_dynamo.ir.uses import WeightUse

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


@pytest.fixture(scope="module")
def device() -> Device:
    return open_device(BOARD)


@pytest.fixture
def prepared(device: Device, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The preparations of the emulated device, as they are made."""
    made: list[str] = []
    namespace = device.namespace()

    def count(name: str) -> None:
        prepare = getattr(namespace, name)

        def counting(**options: Any) -> Any:
            made.append(name)
            return prepare(**options)

        monkeypatch.setattr(namespace, name, counting)

    count("prepare_conv_weights")
    count("prepare_conv_bias")
    torch._dynamo.reset()
    gc.collect()
    return made


def compiled(model: nn.Module, **options: Any) -> Any:
    return torch.compile(model.eval(), backend="ttnn", dynamic=False, options={"device": BOARD, **options})


def image() -> torch.Tensor:
    return torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_weight_is_prepared_at_the_first_call_only(prepared: list[str]) -> None:
    ours = compiled(nn.Conv2d(3, 4, 3))
    for _ in range(3):
        ours(image())
    assert sorted(prepared) == ["prepare_conv_bias", "prepare_conv_weights"]


@torch.no_grad()
def test_a_weight_that_changed_is_prepared_again(prepared: list[str]) -> None:
    model = nn.Conv2d(3, 4, 3)
    ours = compiled(model)
    ours(image())
    model.weight.add_(1.0)
    torch.testing.assert_close(ours(image()), model(image()), rtol=0.02, atol=0.05)
    assert prepared.count("prepare_conv_weights") == 2


@torch.no_grad()
def test_two_programs_that_prepare_a_weight_alike_share_it(prepared: list[str]) -> None:
    model = nn.Conv2d(3, 4, 3)
    first, second = compiled(model), compiled(nn.Sequential(model, nn.ELU()))  # which is none of its activations
    first(image())
    second(image())
    assert sorted(prepared) == ["prepare_conv_bias", "prepare_conv_weights"]


@torch.no_grad()
def test_two_shapes_of_an_image_prepare_a_weight_for_each(prepared: list[str]) -> None:
    ours = compiled(nn.Conv2d(3, 4, 3, bias=False))
    ours(image())
    ours(image()[..., :6])
    assert prepared == ["prepare_conv_weights"] * 2


@torch.no_grad()
def test_a_dumped_program_prepares_its_weights_alone(device: Device, tmp_path: Path) -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 2, 2, 2))
    with tt_dynamo.record() as reports:
        expected = compiled(model, dump=str(tmp_path))(image())
    assert not reports[0].fallbacks
    path = tmp_path / "graph_0" / "program.py"
    scope: dict[str, Any] = {"ttnn": device.namespace(), "__name__": "program", "__file__": str(path)}
    exec(path.read_text().replace("import ttnn\n", ""), scope)
    outputs = scope["forward"](device.handle, image(), *scope["upload_weights"](device.handle))
    torch.testing.assert_close(outputs[0], expected, rtol=0, atol=0)


@torch.no_grad()
def test_what_no_accepted_call_reads_is_not_in_the_program(device: Device) -> None:
    torch._dynamo.reset()
    weight, x = torch.randn(4, 3, 3, 3), torch.randn(1, 3, 512, 512)
    with tt_dynamo.record() as reports:  # convolved in blocks, after the whole image was refused
        options = {"device": BOARD, "dry_run": True}
        torch.compile(nn.functional.conv2d, backend="ttnn", dynamic=False, options=options)(x, weight, None, 1, 1)
    assert reports[0].code.count("ttnn.prepare_conv_weights") == 1


def constant_of_a_constant(number: float) -> WeightUse:
    """A weight that is the absolute of a constant, which is made of zeros and a number."""
    inner, outer, placed = Graph(), Graph(), Graph()
    zeros = inner.call_function(torch.zeros, (4,))
    inner.output(inner.call_function(torch.add, (zeros, number)))
    outer.output(outer.call_function(torch.abs, (outer.call_module("a0"),)))
    use = WeightUse(placed.call_module("constant"), None)
    placed.output(use.node)
    constant = GraphModule({"a0": GraphModule({}, inner)}, outer)
    bind_weights([use], GraphModule({"constant": constant}, placed))
    return use


def test_constants_that_are_made_of_others_are_told_apart_by_those() -> None:
    one, same, other = map(constant_of_a_constant, (46, 46, -37))
    assert one.evaluate().equal(same.evaluate()) and one.expression == same.expression
    assert other.evaluate().equal(torch.full((4,), 37.0)) and other.expression != one.expression
