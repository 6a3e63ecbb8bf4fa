"""A program that was compiled once is taken from its file: the same report and values, and never another's."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fresh_process import BOARD, FreshProcess
from torch import nn

import tt_dynamo
from tt_dynamo.artifacts import files
from tt_dynamo.compiler.compile import Compiler
from tt_dynamo.runtime.program import Program
from tt_dynamo.runtime.recovery import Recovery
from tt_dynamo.runtime.traces.program import NOT_YET

pytestmark = pytest.mark.usefixtures("clean_dynamo")

X = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "cache_root", lambda: tmp_path)
    return tmp_path / "programs"


class Model(nn.Module):
    """A folded constant of weights, one of a literal, and what is computed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps = torch.tensor([0.5, float("inf"), 2.0, 0.25]).repeat(16)
        joined = nn.functional.linear(x, torch.cat([self.first.weight, self.second.weight]))
        return torch.minimum(joined, steps.repeat(2)).relu() + self.first(x).repeat(1, 2)


def started(module: nn.Module, *inputs: torch.Tensor, **options: Any) -> tuple[Any, tt_dynamo.GraphReport]:
    """What a model gives, compiled anew, and its report."""
    torch._dynamo.reset()
    options = {"device": BOARD, "cache": True, **options}
    with tt_dynamo.record() as reports, torch.no_grad():
        y = torch.compile(module, backend="ttnn", dynamic=False, options=options)(*(inputs or (X,)))
    return y, reports[0]


def program_file(folder: Path) -> Path:
    (found,) = folder.glob("*.program")
    return found


def test_a_second_compilation_runs_no_pass_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model()
    first, report = started(model)
    for stage in ("_run_passes", "_place", "_program"):
        monkeypatch.delattr(Compiler, stage)
    second, again = started(model)
    assert torch.equal(first, second)
    assert (report.from_cache, again.from_cache) == (False, True)
    changing = {"seconds": {}, "name": "", "from_cache": False}
    assert dataclasses.replace(again, **changing) == dataclasses.replace(report, **changing)
    assert again.operations and "compiled before" in str(again)


def test_a_program_that_was_found_follows_its_weights() -> None:
    model = Model()
    started(model)
    _, report = started(model)
    assert report.from_cache
    with torch.no_grad():
        model.second.weight.mul_(-2)
    found, report = started(model)
    assert report.from_cache
    torch.testing.assert_close(found, model(X), atol=0.05, rtol=0.05)


def test_what_is_compiled_otherwise_is_compiled_anew() -> None:
    model = Model()
    started(model)
    other = Model()
    other.forward = lambda x: Model.forward(other, x).sigmoid()  # type: ignore[method-assign]
    for module, inputs, options in (
        (model, (X,), {"optimize": "off"}),
        (model, (X,), {"weight_dtype": "bfloat8_b"}),
        (model, (X,), {"weight_dtype": {"first*": "bfloat8_b", "*": "bfloat16"}}),
        (model, (X,), {"dry_run": True}),
        (model, (X,), {"disable_passes": ["fuse_qkv"]}),
        (model, (X[:16].contiguous(),), {}),
        (model, (X.t().contiguous().t(),), {}),
        (other, (X,), {}),
    ):
        assert not started(module, *inputs, **options)[1].from_cache, options
        assert started(module, *inputs, **options)[1].from_cache, options


class Scaled(nn.Module):
    def __init__(self, factor: float, table: list[float]) -> None:
        super().__init__()
        self.factor, self.table = factor, table

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor + torch.tensor(self.table).repeat(32)


def test_literals_tell_graphs_apart() -> None:
    for model in (Scaled(2.0, [1.0, 2.0]), Scaled(3.0, [1.0, 2.0]), Scaled(2.0, [1.0, -2.0])):
        found, report = started(model)
        assert not report.from_cache
        torch.testing.assert_close(found, model(X), atol=0.05, rtol=0.05)


def test_new_code_or_versions_find_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from tt_dynamo.artifacts import key

    model = Model()
    started(model)
    monkeypatch.setattr(key, "sources_digest", lambda: "other")
    assert not started(model)[1].from_cache
    monkeypatch.setattr(key, "version", lambda name: "9.9")
    assert not started(model)[1].from_cache


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"!"),
        lambda path: files.write(path.stem, {"source": "raise SystemError", "of": "another version"}),
    ],
    ids=["cut", "empty", "changed", "other"],
)
def test_a_file_that_is_not_sound_is_noted_and_written_anew(
    folder: Path, damage: Callable[[Path], Any], warnings_logged: Any
) -> None:
    model = Model()
    first, _ = started(model)
    damage(program_file(folder))
    second, report = started(model)
    assert not report.from_cache and torch.equal(first, second)
    assert any("does not load" in note for note in report.notes)
    assert len(warnings_logged()) == 1
    assert started(model)[1].from_cache


def test_a_file_of_another_graph_is_not_taken(folder: Path) -> None:
    started(Scaled(2.0, [1.0, 2.0]))
    one = program_file(folder)
    contents = one.read_bytes()
    started(Scaled(3.0, [1.0, 2.0]))
    (other,) = set(folder.glob("*.program")) - {one}
    other.write_bytes(contents)
    found, report = started(Scaled(3.0, [1.0, 2.0]))
    assert not report.from_cache
    torch.testing.assert_close(found, Scaled(3.0, [1.0, 2.0])(X), atol=0.05, rtol=0.05)


def test_a_folder_that_cannot_be_made_is_noted(folder: Path, warnings_logged: Any) -> None:
    folder.write_text("a file")
    found, report = started(Model())
    torch.testing.assert_close(found, Model()(X), atol=0.05, rtol=0.05)
    assert not report.from_cache and any("cannot be written" in note for note in report.notes)
    assert warnings_logged()


def test_a_full_disk_leaves_no_half_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    _, report = started(Model())
    assert any("No space left" in note for note in report.notes)
    assert list(folder.iterdir()) == []


def test_the_least_recently_used_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started(Scaled(2.0, [1.0, 2.0]))
    monkeypatch.setattr(files, "LIMIT", program_file(folder).stat().st_size * 3 // 2)
    started(Scaled(3.0, [1.0, 2.0]))
    info = tt_dynamo.cache_info()
    assert (info.folder, info.programs) == (folder, 1) and 0 < info.bytes <= info.limit
    assert started(Scaled(3.0, [1.0, 2.0]))[1].from_cache


def test_the_option_turns_it_off(folder: Path) -> None:
    started(Model(), cache=False)
    assert not folder.exists() and tt_dynamo.cache_info().programs == 0
    with pytest.raises(Exception, match="option 'cache' is True or False, not 'no'"):
        started(Model(), cache="no")


def test_a_call_that_fails_runs_on_and_no_second_report_comes(
    monkeypatch: pytest.MonkeyPatch, warnings_logged: Any
) -> None:
    model = Model()
    started(model)
    runs: list[Recovery] = []
    run = Recovery.run

    def counted(self: Recovery, args: Any) -> Any:
        runs.append(self)
        return run(self, args)

    def failing(*_: Any) -> Any:
        raise RuntimeError("TT_FATAL: a fault")

    def found(self: Program) -> None:
        initialize(self)
        self._forward = failing

    initialize = Program.__post_init__
    monkeypatch.setattr(Recovery, "run", counted)
    monkeypatch.setattr(Program, "__post_init__", found)
    y, report = started(model)
    assert report.from_cache and len(runs) == 1
    torch.testing.assert_close(y, model(X), atol=0.05, rtol=0.05)
    assert "a call failed" in warnings_logged()[0]


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(32, 64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x)
        return self.total * 2


def test_what_stays_on_the_device_is_kept_by_a_program_that_was_found() -> None:
    started(Counting())
    model, eager = Counting(), Counting()
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        compiled = torch.compile(model, backend="ttnn", options={"device": BOARD, "cache": True})
        for _ in range(3):
            torch.testing.assert_close(compiled(X), eager(X), atol=0.1, rtol=0.05)
    assert [report.from_cache for report in reports] == [True]
    torch.testing.assert_close(model.total, eager.total, atol=0.1, rtol=0.05)


def test_a_program_that_was_found_is_traced_as_well() -> None:
    model = Model()
    started(model, trace=True)
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        compiled = torch.compile(model, backend="ttnn", options={"device": BOARD, "cache": True, "trace": True})
        compiled(X)
        (report,) = reports
        assert (report.from_cache, report.trace) == (True, NOT_YET)
        for at in range(3):
            torch.testing.assert_close(compiled(X + at), model(X + at), atol=0.1, rtol=0.05)
    assert report.trace == "captured"


def test_a_description_has_every_field_of_a_program(folder: Path) -> None:
    """A field that a description leaves out is made anew by whoever loads it, and listed here."""
    made_anew = {"device", "recovery", "store"}
    never_kept = {"edited", "on_first_weights"}  # the user's file, and a dump, leave a compilation out of the cache
    started(Model(), trace=True)
    description = files.read(program_file(folder).stem)
    fields = {field.name for field in dataclasses.fields(Program)}
    assert description is not None and description["parts"]
    assert set(description) - {"assumptions"} == fields - made_anew - never_kept
    kept_of_reports = {field.name for field in dataclasses.fields(tt_dynamo.GraphReport)}
    assert set(description["report"]) == kept_of_reports


def test_gradients_come_from_the_cache_as_well() -> None:
    found = []
    for _ in range(2):
        torch._dynamo.reset()
        model = Model()
        with tt_dynamo.record() as reports:
            compiled = torch.compile(model, backend="ttnn", options={"device": BOARD, "cache": True})
            compiled(X).sum().backward()
        found.append((model.first.weight.grad, [report.from_cache for report in reports]))
    (first, fresh), (second, cached) = found
    assert not any(fresh) and len(cached) == 2 and all(cached)
    assert torch.equal(first, second)


START = """
import json, sys, torch, tt_dynamo
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU())
with tt_dynamo.record() as reports, torch.no_grad():
    y = torch.compile(model, backend="ttnn", options={"device": BOARD})(torch.ones(32, 64))
found = {"from_cache": reports[0].from_cache, "sum": y.sum().item(), "notes": reports[0].notes}
needless = ("tt_dynamo.compiler.compile", "tt_dynamo.passes", "tt_dynamo.lowering.matmul", "tt_dynamo.estimate")
print(json.dumps({**found, "imported": [name for name in needless if name in sys.modules]}))
"""


def test_processes_that_write_at_once_leave_a_sound_file_to_the_next(fresh_process: FreshProcess) -> None:
    code = START.replace("BOARD", repr(BOARD))
    both = [fresh_process.start(code) for _ in range(2)]
    found = [fresh_process.finish(process) for process in both]
    third = fresh_process.run(code)
    assert third["from_cache"] and not any(each["notes"] for each in [*found, third])
    assert len({each["sum"] for each in [*found, third]}) == 1
    assert max(len(each["imported"]) for each in found) == 4 and not third["imported"]
