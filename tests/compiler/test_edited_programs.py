"""A dumped program that was edited runs in place of the generated one, of its own graph alone."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
import torch
from torch import nn

import tt_dynamo
from tt_dynamo.options import OptionError, Options

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


class Feedforward(nn.Module):
    def __init__(self, width: int = 64, breaks: bool = False) -> None:
        super().__init__()
        self.up, self.down, self.breaks = nn.Linear(64, width), nn.Linear(width, 64), breaks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.exp(self.up(x))
        if self.breaks:
            torch._dynamo.graph_break()
        return self.down(hidden)


def run(model: nn.Module, x: torch.Tensor, **options: object) -> tuple[torch.Tensor, list[tt_dynamo.GraphReport]]:
    torch.compiler.reset()
    compiled = torch.compile(model, backend="ttnn", options={"device": BOARD, **options})
    with tt_dynamo.record() as reports, torch.no_grad():
        return compiled(x), reports


@pytest.fixture
def model() -> Feedforward:
    torch.manual_seed(0)
    return Feedforward()


@pytest.fixture
def dumped(model: Feedforward, tmp_path: Path) -> Path:
    run(model, torch.ones(32, 64), dump=str(tmp_path))
    return tmp_path


def edit(folder: Path, before: str, after: str) -> None:
    path = folder / "graph_0" / "program.py"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def refusal(model: nn.Module, folder: Path, x: torch.Tensor | None = None, **options: object) -> str:
    with pytest.raises(Exception) as caught:
        run(model, torch.ones(32, 64) if x is None else x, program=str(folder), **options)
    assert OptionError.__name__ in f"{type(caught.value).__name__} {caught.value}"
    return str(caught.value)


@pytest.mark.parametrize("folder", ["", "graph_0"])
def test_an_edited_line_runs(model: Feedforward, dumped: Path, folder: str) -> None:
    x = torch.ones(32, 64)
    plain, _ = run(model, x)
    same, (report,) = run(model, x, program=dumped / folder)
    assert same.equal(plain)
    assert any("program.py runs" in note for note in report.notes)
    edit(dumped, "ttnn.exp(", "ttnn.relu(")
    changed, _ = run(model, x, program=dumped / folder)
    torch.testing.assert_close(changed, model.down(torch.relu(model.up(x))), atol=0.02, rtol=0.02)
    assert not torch.allclose(changed, plain, atol=0.1)


def test_each_graph_of_a_model_finds_its_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Feedforward(breaks=True), torch.ones(32, 64)
    plain, _ = run(model, x, dump=str(tmp_path))
    assert (tmp_path / "graph_1" / "program.py").exists()
    again, reports = run(model, x, program=tmp_path)
    assert again.equal(plain)
    assert [any(f"graph_{at}" in note for note in report.notes) for at, report in enumerate(reports)] == [True, True]


def test_another_graph_is_refused_with_what_differs(model: Feedforward, dumped: Path) -> None:
    class Other(Feedforward):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down(torch.tanh(self.up(x)))

    said = refusal(Other(), dumped)
    assert "there: " in said and "aten.exp" in said and "aten.tanh" in said
    assert "(16, 64)" in refusal(model, dumped, torch.ones(16, 64))
    assert "bfloat8_b" in refusal(model, dumped, weight_dtype="bfloat8_b")


def test_what_is_no_program_is_refused(model: Feedforward, dumped: Path, tmp_path: Path) -> None:
    assert "what a dump left" in refusal(model, tmp_path / "nothing")
    edit(dumped, "def forward(", "def backward(")
    assert "defines no function forward" in refusal(model, dumped)
    edit(dumped, "def backward(", "def forward(more, ")
    assert "is to take (device, " in refusal(model, dumped)
    edit(dumped, "def forward(more, ", "def forward(((")
    assert "program.py, line " in refusal(model, dumped)
    with pytest.raises(OptionError, match="'program' is the path of a folder"):
        Options.parse({"program": 3})


def test_a_fault_of_an_edited_line_is_shown(model: Feedforward, dumped: Path) -> None:
    edit(dumped, "ttnn.exp(", "ttnn.no_such_operation(")
    with pytest.raises(AttributeError, match="no_such_operation") as caught:
        run(model, torch.ones(32, 64), program=dumped)
    (line,) = [frame.line for frame in traceback.extract_tb(caught.tb) if frame.filename.endswith("program.py")][-1:]
    assert "no_such_operation" in line
