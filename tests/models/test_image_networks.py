"""Convolutional networks whole: all on the device, eager torch's answer, and no call that moves what another moved.

Shortened ones by default; those of the table, at batch 1 and 8, in the tests marked slow.
"""

import os
import re

import pytest
import torch
from comparison import pcc
from image_networks import NETWORKS, SHORT, built, images
from torch import nn

import tt_dynamo

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
MOVES = (
    "ttnn.interleaved_to_sharded",
    "ttnn.permute",
    "ttnn.sharded_to_interleaved",
    "ttnn.tilize",
    "ttnn.to_layout",
    "ttnn.to_memory_config",
    "ttnn.transpose",
    "ttnn.untilize",
)
VIEWS = ("ttnn.reshape", "ttnn.squeeze", "ttnn.unsqueeze")


def compiled(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, tt_dynamo.GraphReport]:
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        found = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD})(x)
    (report,) = reports
    return found, report


def check(network, batch: int) -> tt_dynamo.GraphReport:
    """Eager torch's answer, without a fallback and without a move too many; returns the report."""
    model, x = built(network), images(network, batch)
    found, report = compiled(model, x)
    with torch.no_grad():
        expected = model(x)
    assert not report.fallbacks
    assert found.shape == expected.shape and found.isfinite().all()
    assert pcc(found, expected) >= 0.99
    assert (found - expected).norm() <= 0.1 * expected.norm()
    assert not there_and_back(report.code)
    between = between_convolutions(report)
    assert not {"ttnn.permute", "ttnn.transpose"}.intersection(between), between
    return report


def there_and_back(code: str) -> list[str]:
    """Calls that move what a move made, and those that move again, behind views, what a move of their kind did."""
    made: dict[str, tuple[str, str]] = {}
    found = []
    for name, call, operand in re.findall(r"^    (\w+) = (ttnn\.[\w.]+)\((\w*)", code, re.MULTILINE):
        made[name] = call, operand
        if call not in MOVES:
            continue
        before, source = made.get(operand, ("", ""))
        is_pair = before in MOVES
        while before in VIEWS:
            before, source = made.get(source, ("", ""))
        if is_pair or before == call:
            found.append(name)
    return found


def between_convolutions(report: tt_dynamo.GraphReport) -> list[str]:
    """The TTNN calls from the first convolution to the last."""
    calls = [operation.target for operation in report.operations]
    convolutions = [index for index, call in enumerate(calls) if call.startswith("ttnn.conv")]
    return calls[convolutions[0] : convolutions[-1] + 1]


def launches(report: tt_dynamo.GraphReport) -> dict[str, int]:
    """Kernel launches of the blocks of a ResNet: "layer1.0"."""
    found: dict[str, int] = {}
    for operation in report.operations:
        block = ".".join(operation.module.split(".")[:2])
        if re.fullmatch(r"layer\d\.\d", block):
            found[block] = found.get(block, 0) + operation.programs
    return found


def launches_what_it_computes(report: tt_dynamo.GraphReport) -> None:
    """Nothing moves between the convolutions of a ResNet: those of a block are 4 launches, and the sum is the fifth.

    Two more are for a shortcut: its convolution, and the halo that picks the pixels which its stride leaves.
    """
    assert not set(between_convolutions(report)).intersection(MOVES)
    blocks = launches(report)
    assert blocks and max(blocks.values()) <= 7, blocks
    assert all(count <= 5 for name, count in blocks.items() if not name.endswith(".0")), blocks


def test_moves_of_what_a_move_made_are_found():
    code = "    a = ttnn.permute(x, (0, 2, 3, 1))\n    b = ttnn.to_layout(a, t)\n    c = ttnn.add(b, b)\n"
    assert there_and_back(code) == ["b"]


def test_moves_there_and_back_around_a_view_are_found():
    code = "    a = ttnn.permute(x, (0, 2, 3, 1))\n    b = ttnn.reshape(a, s)\n    c = ttnn.permute(b, (0, 3, 1, 2))\n"
    assert there_and_back(code) == ["c"]
    assert there_and_back(code.replace("ttnn.reshape(a, s)", "ttnn.add(a, a)")) == []


def test_a_short_resnet_launches_what_it_computes():
    launches_what_it_computes(check(SHORT["short resnet"], 1))


def test_a_small_unet_runs_on_the_device():
    report = check(SHORT["small unet"], 2)
    assert [call for call in between_convolutions(report) if "transpose" in call] == ["ttnn.conv_transpose2d"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_runs_on_the_device(name, batch):
    report = check(NETWORKS[name], batch)
    if name.startswith("resnet"):
        launches_what_it_computes(report)
