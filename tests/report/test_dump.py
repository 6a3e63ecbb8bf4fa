"""Dumps: what lies in the folder, that the program in it runs alone, and that no failure gets out."""

import ast
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tt_dynamo.devices.clusters import CLUSTERS
from tt_dynamo.devices.mock.toolchain import mock_environment
from tt_dynamo.ir.spec import Spec
from tt_dynamo.report.dump import Dump, InputSpec, WeightSpec, standalone_program
from tt_dynamo.report.report import GraphReport, Operation

SOURCE = """import torch
import ttnn

scale = 2.0

def forward(device, x, ids, weight, kernel, offset):
    device_x = ttnn.from_torch(x, dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT, device=device)
    y = ttnn.to_torch(ttnn.linear(device_x, weight))
    return y * scale, ids + math.floor(2.5), None, kernel, offset
"""
INPUTS = [InputSpec("x", (2, 3), torch.float32), InputSpec("ids", (4,), torch.int64)]
WEIGHTS = [
    WeightSpec("weight", Spec((3, 2), "bfloat16", "TILE").calls),
    WeightSpec("kernel", Spec((2, 2), "bfloat16", "ROW_MAJOR", "HOST").calls),
    WeightSpec("offset"),
]
# Stands in for TTNN: what the program needs of it, in torch, and a log of how it was asked.
STAND_IN = """
import sys, torch
bfloat16, TILE_LAYOUT, ROW_MAJOR_LAYOUT = "bfloat16", "TILE", "ROW_MAJOR"
class Tensor:
    def __init__(self, value): self.value = value
def open_device(device_id, l1_small_size): print("open", device_id, l1_small_size); return "device"
def close_device(device): print("close", device)
def from_torch(value, dtype, layout, device=None): print("upload", dtype, layout, device); return Tensor(value)
def to_torch(tensor): assert isinstance(tensor, Tensor); return tensor.value
def linear(x, weight): assert "tt_dynamo" not in sys.modules; return Tensor(x.value @ weight.value)
"""


@pytest.fixture
def graph_module():
    def double_relu(x):
        return torch.relu(x) * 2

    return torch.fx.symbolic_trace(double_relu)


@pytest.fixture
def report():
    return GraphReport("graph_0", "n150 (emulated)", nodes=2, operations=[Operation("relu", "ttnn.relu", "head", 1)])


def tensors():
    return {"weight": torch.arange(6.0).reshape(2, 3).T, "kernel": torch.ones(2, 2), "offset": torch.ones(7)}


def fill(dump, graph_module, report):
    dump.graph("aten", graph_module)
    dump.graph("fuse qkv/heads", graph_module)
    dump.program(SOURCE, INPUTS, WEIGHTS, tensors())
    dump.report(report)
    dump.drawing(graph_module.graph)


def test_a_dump_holds_graphs_program_report_and_drawing(tmp_path, graph_module, report):
    dump = Dump.create(tmp_path / "new" / "dump")
    fill(dump, graph_module, report)
    assert dump.path == tmp_path / "new" / "dump" / "graph_0"
    assert sorted(path.name for path in dump.path.iterdir()) == [
        "00_aten.py",
        "01_fuse_qkv_heads.py",
        "graph.svg",
        "program.py",
        "report.json",
        "report.txt",
        "weights.pt",
    ]
    text = (dump.path / "01_fuse_qkv_heads.py").read_text()
    assert text.startswith("# The graph after: fuse qkv/heads\n") and "torch.relu(x)" in text
    ast.parse(text)
    assert json.loads((dump.path / "report.json").read_text())["operations"][0]["module"] == "head"
    assert "ttnn.relu" in (dump.path / "report.txt").read_text()
    assert (dump.path / "graph.svg").read_text().startswith("<svg")


def test_every_graph_gets_a_folder_of_its_own(tmp_path):
    (tmp_path / "graph_1").mkdir()  # of another process
    (tmp_path / "graph_1" / "report.json").write_text("theirs")
    assert [Dump.create(tmp_path).path.name for _ in range(3)] == ["graph_0", "graph_2", "graph_3"]
    assert (tmp_path / "graph_1" / "report.json").read_text() == "theirs"


def test_a_relative_folder_stays_where_it_was_asked_for(tmp_path, monkeypatch, report):
    monkeypatch.chdir(tmp_path)
    dump = Dump.create("dump")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    dump.report(report)
    assert (tmp_path / "dump" / "graph_0" / "report.json").exists()


@pytest.mark.parametrize("directory", [None, ""])
def test_without_a_folder_nothing_is_written(directory, tmp_path, monkeypatch, graph_module, report):
    monkeypatch.chdir(tmp_path)
    dump = Dump.create(directory)
    fill(dump, graph_module, report)
    assert dump.path is None and not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_is_one_warning(tmp_path, caplog, graph_module, report):
    (tmp_path / "dump").write_text("a file")
    dump = Dump.create(tmp_path / "dump")
    fill(dump, graph_module, report)
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert str(tmp_path / "dump") in warning.getMessage() and "could not create" in warning.getMessage()
    assert warning.name == "tt_dynamo.report.dump"


def test_a_folder_that_vanishes_is_one_warning(tmp_path, caplog, graph_module, report):
    dump = Dump.create(tmp_path)
    dump.path.rmdir()
    fill(dump, graph_module, report)
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_what_cannot_be_written_leaves_no_half_file_and_the_rest_is_written(tmp_path, caplog, report):
    class Unprintable:
        def print_readable(self, **options):
            raise ZeroDivisionError("no code")

    class Unpicklable(torch.Tensor):
        def __reduce_ex__(self, protocol):
            raise TypeError("cannot pickle")

        def detach(self):
            raise TypeError("cannot pickle")

    dump = Dump.create(tmp_path)
    dump.graph("aten", Unprintable())
    dump.program(SOURCE, INPUTS, WEIGHTS, {**tensors(), "weight": torch.ones(2).as_subclass(Unpicklable)})
    dump.drawing(None)
    dump.report(report)
    assert sorted(path.name for path in dump.path.iterdir()) == ["program.py", "report.json", "report.txt"]
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "00_aten.py" in warning.getMessage() and "no code" in warning.getMessage()


def test_a_full_disk_leaves_no_half_file(tmp_path, caplog):
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which Linux has")
    dump = Dump.create(tmp_path)
    (dump.path / "weights.pt.unfinished").symlink_to("/dev/full")
    dump.program(SOURCE, INPUTS, WEIGHTS, tensors())
    assert [path.name for path in dump.path.iterdir()] == ["program.py"]
    assert "weights.pt" in caplog.text


def test_an_interrupt_is_no_dump_failure(tmp_path):
    class Interrupting:
        def print_readable(self, **options):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Dump.create(tmp_path).graph("aten", Interrupting())


def test_weights_are_saved_without_the_storage_they_are_views_of(tmp_path):
    storage = torch.zeros(1000, 1000)
    storage[:, 0] = 7.0
    dump = Dump.create(tmp_path)
    dump.program(SOURCE, INPUTS, WEIGHTS, {**tensors(), "weight": storage[:4, 0].expand(2, 4)})
    assert (dump.path / "weights.pt").stat().st_size < 10_000
    assert torch.load(dump.path / "weights.pt")["weight"].equal(torch.full((2, 4), 7.0))


def run_program(folder, tmp_path, *arguments):
    (tmp_path / "ttnn.py").write_text(STAND_IN)
    return subprocess.run(
        [sys.executable, str(folder / "program.py"), *arguments],
        env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_program_runs_alone_and_saves_its_outputs(tmp_path):
    dump = Dump.create(tmp_path / "dump")
    dump.program(SOURCE, INPUTS, WEIGHTS, tensors())
    done = run_program(dump.path, tmp_path, "--save")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "open 0 32768",
        "upload bfloat16 TILE device",
        "upload bfloat16 ROW_MAJOR None",
        "upload bfloat16 TILE device",
        "close device",
        "output 0: [2, 2] torch.float32",
        "output 1: [4] torch.int64",
        "output 2: None",
        "output 3: [2, 2] torch.float32",
        "output 4: [7] torch.float32",
    ]
    saved = torch.load(dump.path / "outputs.pt")
    x, ids = saved["inputs"]
    assert x.shape == (2, 3) and ids.dtype == torch.int64 and set(ids.tolist()) <= {0, 1}
    torch.testing.assert_close(saved["outputs"][0], x @ tensors()["weight"] * 2)
    assert saved["outputs"][1].equal(ids + 2)


def test_the_program_closes_its_device_when_it_fails(tmp_path):
    dump = Dump.create(tmp_path / "dump")
    dump.program("def forward(device):\n    raise ValueError('broken')\n", [], [], {})
    done = run_program(dump.path, tmp_path)
    assert done.returncode != 0 and "broken" in done.stderr
    assert done.stdout.splitlines() == ["open 0 32768", "close device"]


def test_the_program_imports_torch_and_ttnn_and_nothing_of_ours():
    tree = ast.parse(standalone_program(SOURCE, INPUTS, WEIGHTS))
    modules = {
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert modules == {"argparse", "math", "pathlib", "torch", "ttnn"}


def test_example_inputs_have_the_dtype_of_their_spec(tmp_path):
    dtypes = [torch.bool, torch.int32, torch.bfloat16, torch.float16]
    inputs = [InputSpec(f"x{number}", (), dtype) for number, dtype in enumerate(dtypes)]
    dump = Dump.create(tmp_path / "dump")
    dump.program("def forward(device, x0, x1, x2, x3):\n    return x0, x1, x2, x3\n", inputs, [], {})
    done = run_program(dump.path, tmp_path)
    expected = [f"output {number}: [] {dtype}" for number, dtype in enumerate(dtypes)]
    assert done.stdout.splitlines()[2:] == expected, done.stderr


@pytest.mark.slow  # as a dumped encoder does in tests/capture/test_backend.py
def test_the_program_runs_on_the_real_ttnn(tmp_path):
    dump = Dump.create(tmp_path)
    dump.program(SOURCE.replace("x, dtype", "x.unsqueeze(0), dtype"), INPUTS, WEIGHTS, tensors())
    done = subprocess.run(
        [sys.executable, str(dump.path / "program.py"), "--save"],
        env={**os.environ, **mock_environment(CLUSTERS["n150"])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert "output 0: [1, 2, 2]" in done.stdout
    assert torch.load(dump.path / "outputs.pt")["outputs"][3].shape == (2, 2)
