"""The backend as a user meets it: found by its name, quiet when imported, with options, logs, reports and dumps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import assert_same, check
from fresh_process import BOARD, FreshProcess
from small_models import Attention, Feedforward

import tt_dynamo
from tt_dynamo.devices.clusters import CLUSTERS
from tt_dynamo.devices.mock.toolchain import mock_environment
from tt_dynamo.passes import OPTIONAL

TESTS = Path(__file__).parents[1]
FIRST_USE = f"""
    import json, logging, os, sys
    sys.path.insert(0, {str(TESTS)!r})
    import torch, torch._dynamo, torch._inductor.config
    from small_models import Feedforward

    def surroundings():
        return {{
            "environment": dict(os.environ), "working directory": os.getcwd(), "files": os.listdir(),
            "dynamo": torch._dynamo.config.get_config_copy(), "inductor": torch._inductor.config.get_config_copy(),
            "threads": torch.get_num_threads(), "grad": torch.is_grad_enabled(), "dtype": torch.get_default_dtype(),
            "random": torch.random.get_rng_state().tolist(), "filters": len(__import__("warnings").filters),
            "handlers": (logging.getLogger().handlers[:], logging.getLogger("tt_dynamo").handlers[:]),
            "level": logging.getLogger("tt_dynamo").level, "excepthook": sys.excepthook, "path": sys.path[:],
        }}

    def differences(before):
        return [name for name, value in surroundings().items() if value != before[name]]

    before = surroundings()
    import tt_dynamo, tt_dynamo.backend, tt_dynamo.options, tt_dynamo.passes, tt_dynamo.lowering
    on_import = differences(before)
    imported = [name for name in ("ttnn", "loguru", "tracy", "transformers") if name in sys.modules]

    before = surroundings()
    model = Feedforward()
    torch.manual_seed(0)
    before["random"] = torch.random.get_rng_state().tolist()
    with torch.no_grad():
        torch.compile(model, backend="ttnn", options={{"device": {BOARD!r}}})(torch.ones(4, 32))
    print(json.dumps({{"on_import": on_import, "imported": imported, "on_use": differences(before)}}))
"""


def test_importing_and_using_change_nothing_around_them(fresh_process: FreshProcess) -> None:
    found = fresh_process.run(FIRST_USE)
    assert found["imported"] == [], "ttnn takes seconds to import and logs"
    assert found["on_import"] == []
    assert found["on_use"] == []


BY_NAME = """
    import json, sys
    import torch
    listed = "ttnn" in torch._dynamo.list_backends()
    imported = [name for name in sys.modules if name.split(".")[0] in ("tt_dynamo", "ttnn")]
    model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.GELU(), torch.nn.Linear(32, 4))
    compiled = torch.compile(model, backend="ttnn")
    x = torch.ones(4, 32)
    error = float((compiled(x) - model(x)).detach().abs().max())
    compiled(x).sum().backward()
    print(json.dumps({"listed": listed, "imported": imported, "error": error}))
"""


def test_the_backend_is_found_by_its_name_and_prints_nothing(fresh_process: FreshProcess) -> None:
    """Nor does the interpreter when it ends: no leaks that nanobind reports, no device that is closed too late."""
    found = fresh_process.run(BY_NAME)
    assert found["listed"] and found["imported"] == []
    assert found["error"] < 0.05
    assert found["output"] == ""


def test_logs_go_where_torch_logs_asks(fresh_process: FreshProcess) -> None:
    found = fresh_process.run(BY_NAME, TORCH_LOGS="+tt_dynamo")
    assert found["error"] < 0.05
    assert "opened n150 (emulated)" in found["output"]
    assert "compiled in" in found["output"] and "canonicalize: " in found["output"]


@pytest.mark.slow
def test_a_topic_can_be_asked_for_alone(fresh_process: FreshProcess) -> None:
    output = fresh_process.run(BY_NAME, TORCH_LOGS="+tt_dynamo.passes")["output"]
    assert "canonicalize: " in output
    assert "compiled in" not in output


pytestmark = pytest.mark.usefixtures("clean_dynamo")


def test_one_line_says_what_became_of_each_graph(board_device: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        y = torch.special.bessel_j1(torch.relu(x))
        torch._dynamo.graph_break()
        return y * 2

    with caplog.at_level("INFO", logger="tt_dynamo"):
        torch.compile(broken, backend="ttnn")(torch.randn(4, 4))
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("tt_dynamo") and r.levelname == "INFO"]
    assert len(lines) == 2
    assert "2 nodes, 50.0% on the device, 1 fallbacks" in lines[0]
    assert "1 nodes, 100.0% on the device, 0 fallbacks" in lines[1]
    assert all(BOARD in line and "compiled in" in line for line in lines)


def test_a_dry_run_has_the_shapes_and_dtypes_and_makes_every_call(board_device: Any) -> None:
    model = Attention().half()
    ids, keep = torch.randint(0, 10, (2, 8)), torch.ones(2, 8, dtype=torch.bool)
    with torch.no_grad(), tt_dynamo.record() as reports:
        eager = model.float()(ids, keep)
        model.half()
        ours = torch.compile(model, backend="ttnn", options={"dry_run": True})(ids, keep)
    assert [(y.shape, y.dtype) for y in ours] == [(y.shape, torch.float16) for y in eager]
    assert reports[0].fallbacks == [] and reports[0].device_programs > 8


# Together with every fifth other by default: tests/passes/test_pipeline.py leaves out each by itself.
LEFT_OUT = [pytest.param([name], id=name, marks=pytest.mark.slow) for name in OPTIONAL]
LEFT_OUT += [pytest.param(list(OPTIONAL[start::5]), id=f"every fifth from {start}") for start in range(5)]


@pytest.mark.parametrize("names", LEFT_OUT)
def test_every_optional_pass_can_be_left_out(board_device: Any, names: list[str]) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = torch.nn.Conv2d(3, 64, 8, stride=8)
            self.encoder = torch.nn.TransformerEncoderLayer(64, 2, 128, activation="gelu", batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.encoder(self.patches(x).flatten(2).transpose(1, 2))

    torch.backends.mha.set_fastpath_enabled(False)
    try:
        (report,) = check(Model().eval(), lambda: (torch.randn(2, 3, 32, 32),), options={"disable_passes": names})
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert all("convolution" in fallback.reason for fallback in report.fallbacks)


def test_all_optional_passes_can_be_left_out(board_device: Any) -> None:
    options = {"disable_passes": list(OPTIONAL)}
    inputs = torch.randint(0, 10, (2, 8)), torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
    check(Attention(), lambda: inputs, options=options)


def test_reports_nest_and_end_with_their_block(board_device: Any) -> None:
    compiled = torch.compile(lambda x: F.gelu(x) * 2, backend="ttnn", dynamic=False)
    with tt_dynamo.record() as outer:
        compiled(torch.randn(2, 32))
        with tt_dynamo.record() as inner:
            compiled(torch.randn(4, 32))
            compiled(torch.randn(4, 32))
        compiled(torch.randn(8, 32))
    compiled(torch.randn(16, 32))
    assert len(outer) == 3 and len(inner) == 1
    assert inner[0] is outer[1]
    assert len({report.name for report in outer}) == 3


def test_a_report_counts_what_the_program_does(board_device: Any) -> None:
    with torch.no_grad(), tt_dynamo.record() as reports:
        torch.compile(Feedforward(), backend="ttnn")(torch.randn(64, 32))
    (report,) = reports
    assert [operation.target for operation in report.operations] == [
        "ttnn.from_torch",
        "ttnn.linear",
        "ttnn.linear",
        "ttnn.layer_norm",
        "ttnn.to_torch",
    ]
    assert report.calls == 5 and report.device_programs == 3
    assert report.transfer_bytes == 2 * 64 * 32 * 2
    assert report.weight_bytes == 2 * (32 * 64 * 2 + 64 + 32 * 3)
    assert [transfer.direction for transfer in report.transfers] == ["to_device", "to_host"]
    assert report.device_share == 1.0 and report.host_nodes == 0
    assert set(report.seconds) == {"passes", "placement", "lowering", "codegen", "measure"}
    json.dumps(report.to_dict())
    assert report.name in str(report)


def test_the_environment_variable_sets_the_dump_folder(
    board_device: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TT_DYNAMO_DUMP", str(tmp_path / "dump"))
    check(Feedforward(), lambda: (torch.randn(4, 32),))
    assert (tmp_path / "dump" / "graph_0" / "program.py").exists()


def test_a_dumped_encoder_runs_alone_and_on_new_inputs(board_device: Any, tmp_path: Path) -> None:
    """One layer of BERT: program.py in a process that has TTNN and cannot import tt_dynamo."""
    import transformers

    config = transformers.BertConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128)
    model = transformers.BertModel(config).eval()
    inputs = {
        "input_ids": torch.randint(0, 100, (2, 16)),
        "attention_mask": torch.tensor([[1] * 16, [1] * 9 + [0] * 7]),
    }
    with torch.no_grad():
        compiled = torch.compile(model, backend="ttnn", options={"dump": tmp_path})
        assert_same(compiled(**inputs).last_hidden_state, model(**inputs).last_hidden_state)
    folder = tmp_path / "graph_0"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"00_aten.py", "program.py", "weights.pt", "report.json", "report.txt", "graph.svg"}
    for stage in folder.glob("[0-9]*.py"):
        compile(stage.read_text(), str(stage), "exec")
    hidden = "import sys; sys.modules['tt_dynamo'] = None; sys.argv = ['program.py', '--save']; import runpy; "
    done = subprocess.run(
        [sys.executable, "-c", f"{hidden}runpy.run_path({str(folder / 'program.py')!r}, run_name='__main__')"],
        cwd=tmp_path,
        env={**os.environ, **mock_environment(CLUSTERS[BOARD])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    outputs = [line for line in done.stdout.splitlines() if line.startswith("output ")]
    assert outputs == ["output 0: [2, 16, 64] torch.float32", "output 1: [2, 64] torch.float32"]
    saved = torch.load(folder / "outputs.pt")
    assert len(saved["inputs"]) == len(inputs)
