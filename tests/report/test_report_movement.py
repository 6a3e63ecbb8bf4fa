"""Launches that compute nothing are counted, by operation and by module."""

from __future__ import annotations

import json
import os

import pytest
import torch
from torch import nn

import tt_dynamo
from tt_dynamo.estimate import kernels
from tt_dynamo.estimate.operations import OPERATIONS
from tt_dynamo.report.movement import MOVES
from tt_dynamo.report.report import GraphReport, Operation

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def reported(*operations):
    return GraphReport("graph_0", BOARD, operations=[Operation(f"op_{i}", *op) for i, op in enumerate(operations)])


def encoder():
    layers = [
        [
            ("ttnn.linear", f"layers.{layer}.attention", 1),
            ("ttnn.permute", f"layers.{layer}.attention", 2),
            ("ttnn.slice", f"layers.{layer}.attention", 1),
            ("ttnn.reshape", f"layers.{layer}.mlp", 0),
            ("ttnn.conv2d", f"layers.{layer}.mlp", 3),
            ("ttnn.typecast", f"layers.{layer}.mlp", layer),
        ]
        for layer in range(2)
    ]
    return reported(*layers[0], *layers[1], ("ttnn.to_layout", "", 1))


def test_launches_are_counted_by_operation_and_module_the_most_first():
    movement = encoder().movement
    assert movement.launches == 8 and movement.program_launches == 16
    assert list(movement.operations.items()) == [
        ("ttnn.permute", 4),
        ("ttnn.slice", 2),
        ("ttnn.typecast", 1),
        ("ttnn.to_layout", 1),
    ]
    assert movement.modules == {"layers.0.attention": 3, "layers.1.attention": 3, "layers.1.mlp": 1, "": 1}
    assert encoder().movement_share == 0.5


def test_alike_layers_share_a_line():
    assert [line.split(maxsplit=1) for line in str(encoder().movement).splitlines()] == [
        ["launches", "operations          module"],
        ["6", "4 permute, 2 slice  layers.*.attention"],
        ["1", "1 typecast          layers.*.mlp"],
        ["1", "1 to_layout         the model itself"],
    ]


def test_a_report_names_the_share_and_the_modules_that_move_most():
    lines = str(encoder()).splitlines()
    at = lines.index(
        "movement          8 launches (50.0%) compute nothing: 4 permute, 2 slice, 1 typecast, 1 to_layout"
    )
    assert lines[at + 1] == "  6 in            layers.*.attention: 4 permute, 2 slice"
    many = reported(*(("ttnn.pad", name, 1) for name in "abcdefgh"))
    assert str(many).count(": 1 pad") == 5


def test_a_graph_that_only_computes_or_launches_nothing_has_no_movement():
    computing = reported(("ttnn.linear", "head", 4), ("ttnn.reshape", "head", 0))
    assert computing.movement_share == 0.0 and computing.movement.modules == {}
    assert "movement          0 launches (0.0%) compute nothing\n" in str(computing)
    views = reported(("ttnn.reshape", "", 0))
    assert views.movement_share == 0.0 and views.movement.launches == 0
    assert "movement" not in str(views)


def test_json_has_the_movement():
    facts = json.loads(json.dumps(encoder().to_dict()))
    assert facts["movement_share"] == 0.5
    assert facts["movement"]["operations"]["ttnn.permute"] == 4
    assert facts["movement"]["modules"]["layers.0.attention"] == 3


def test_what_the_estimate_costs_as_moves_is_movement():
    families = {
        kernels.copy, kernels.fill_padding, kernels.part, kernels.transpose, kernels.reshape, kernels.place,
        kernels.change_layout,
    }  # fmt: skip
    moves = {name for name, formula in OPERATIONS.items() if formula in families}
    assert moves <= MOVES
    assert {OPERATIONS[name] for name in MOVES - moves} == {kernels.nothing}  # transfers


class Windows(nn.Module):
    """Two windows of an image's columns, each through a product of its own, side by side again."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x):
        return torch.cat([self.first(x[:, :64]), self.second(x[:, 64:])], -1)


CASES = {
    "elementwise": (lambda x: torch.exp(x) * x, 2, {}),
    "a transpose": (lambda x: torch.exp(torch.exp(x).mT), 3, {"ttnn.permute": 1}),
    "windows": (Windows(), 7, {"ttnn.slice": 2, "ttnn.to_layout": 2, "ttnn.concat": 1}),
    "a view": (lambda x: x.view(1, 64, 128), 0, {}),
}


def compiled(model, *inputs):
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD})(*inputs)
    (report,) = reports
    return report


@pytest.mark.parametrize("name", CASES)
def test_movement_of_a_program(name, board_device):
    model, launches, moves = CASES[name]
    report = compiled(model, random(64, 128))
    assert report.device_programs == report.movement.program_launches == launches
    assert report.movement.operations == moves
    assert report.movement_share == (sum(moves.values()) / launches if launches else 0.0)


def test_the_halo_of_a_convolution_is_part_of_it(board_device):
    report = compiled(nn.Conv2d(32, 32, 3, padding=1), random(1, 32, 16, 16))
    assert report.launches["ttnn.conv2d"] > 1
    assert "ttnn.conv2d" not in report.movement.operations
    assert report.movement.launches + report.launches["ttnn.conv2d"] == report.device_programs
