"""The tuner times what is about the fastest, leaves out what computes something else, and keeps what it finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from comparison import assert_same
from fresh_process import BOARD, FreshProcess
from torch import nn

import tt_dynamo
from tt_dynamo.compiler.choices import Choices, Tunings, tunings_path
from tt_dynamo.tuner.device_clock import CALLS, REPEATS, WARM_UPS, DeviceClock
from tt_dynamo.tuner.tuner import Candidate, EstimateClock, Tuner, Tuning


class Stopwatch(EstimateClock):
    """Measures the times that it is given, and gives a PCC to each candidate."""

    measured = True

    def __init__(self, times: dict[str, float], pcc: dict[str, float] | None = None) -> None:
        self.times, self.correlation = times, pcc or {}
        self.timed: list[str] = []

    def seconds(self, candidate: Candidate, operands: Any) -> float:
        self.timed.append(candidate.name)
        return self.times[candidate.name]

    def pcc(self, candidate: Candidate, first: Candidate, operands: Any) -> float | None:
        return self.correlation.get(candidate.name, 1.0)


def candidates(**estimates: float) -> list[Candidate]:
    return [Candidate(name, seconds, lambda tensors: None) for name, seconds in estimates.items()]


def tuned(clock: Any, kept: Any = None, **estimates: float) -> Tuning:
    found = Tuner({} if kept is None else kept, clock).tune("q", "ttnn.linear", "a", candidates(**estimates), {})
    assert found is not None
    return found


def test_what_is_estimated_to_be_about_the_fastest_is_timed_and_the_fastest_wins() -> None:
    clock, kept = Stopwatch({"a": 5.0, "b": 4.0, "c": 6.0}), {}
    found = tuned(clock, kept, a=1.0, b=1.2, c=1.29, d=1.31)
    assert clock.timed == ["a", "b", "c"] and found.winner == "b" and found.measured
    assert kept == {"q": found} and found.gain == pytest.approx(0.2)


def test_a_winner_that_computes_something_else_is_left_out(warnings_logged: Any) -> None:
    clock = Stopwatch({"a": 5.0, "b": 3.0, "c": 4.0}, pcc={"b": 0.5, "c": 0.999})
    found = tuned(clock, a=1.0, b=1.0, c=1.0)
    assert (found.winner, found.pcc) == ("c", 0.999)
    assert "b has a PCC of 0.5000 with a" in warnings_logged()[0]


def test_what_measures_does_not_take_an_estimate_for_an_answer() -> None:
    kept = {"q": Tuning("ttnn.linear", "a", "a", {"a": 1.0}, measured=False)}
    assert Tuner(kept).find("q", ["a"]) and Tuner(kept, EstimateClock()).find("q", ["a"])
    assert Tuner(kept, Stopwatch({})).find("q", ["a"]) is None
    assert Tuner(kept).find("q", ["b"]) is None and Tuner(kept).find("other", ["a"]) is None


class Traces:
    """What of TTNN times calls, and how often each was called; `replayed` are calls of traces."""

    def __init__(self, region: bool) -> None:
        self.region, self.made, self.replayed, self.released = region, 0, 0, 0

    def call(self, tensors: Any) -> torch.Tensor:
        self.made += 1
        return torch.ones(2)

    def synchronize_device(self, handle: Any) -> None: ...

    def begin_trace_capture(self, handle: Any, cq_id: int) -> int:
        return 7

    def end_trace_capture(self, handle: Any, trace: int, cq_id: int) -> None:
        if not self.region:
            raise RuntimeError("Creating trace buffers of size 1 B, but only 0 B is allocated for trace region")

    def execute_trace(self, handle: Any, trace: int, cq_id: int, blocking: bool) -> None:
        assert trace == 7 and blocking
        self.replayed += CALLS

    def release_trace(self, handle: Any, trace: int) -> None:
        self.released += 1


@pytest.mark.parametrize("region", [True, False])
def test_a_device_replays_a_trace_or_without_room_for_one_makes_the_calls(region: bool) -> None:
    ttnn = Traces(region)
    seconds = DeviceClock(ttnn, None).seconds(Candidate("a", 1.0, ttnn.call), {})
    rounds = (WARM_UPS + REPEATS) * CALLS
    assert ttnn.replayed == (rounds if region else 0) and ttnn.released == 1
    assert ttnn.made == WARM_UPS + CALLS + (0 if region else rounds)
    assert 0 < seconds < 1


def test_results_are_compared_on_the_device() -> None:
    class Values:
        to_torch = staticmethod(lambda tensor: tensor)

    x = torch.randn(64, generator=torch.Generator().manual_seed(0))
    give = [Candidate("", 1.0, lambda tensors, y=y: y) for y in (x, x + 0.01, -x, torch.full_like(x, float("nan")))]
    pccs = [DeviceClock(Values(), None).pcc(one, give[0], {}) for one in give]
    assert pccs[0] == 1.0 and pccs[1] == pytest.approx(1.0) and pccs[2] == pytest.approx(-1.0) and pccs[3] == 0.0


# --- compiled -------------------------------------------------------------------------------------------------------


@pytest.fixture
def searched(board_device: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of what is chosen and tuned in a test, which are none at first."""
    monkeypatch.setattr("tt_dynamo.compiler.choices.cache_root", lambda: tmp_path)
    for kind in (Choices, Tunings):
        monkeypatch.delitem(board_device._resources, kind, raising=False)
    yield tunings_path(board_device)
    for kind in (Choices, Tunings):
        board_device._resources.pop(kind, None)


def compiled(**options: Any) -> Any:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model, x = nn.Linear(1024, 1024), torch.randn(512, 1024)
    options = {"device": BOARD, **options}
    with tt_dynamo.record() as reports, torch.no_grad():
        assert_same(torch.compile(model, backend="ttnn", options=options)(x), model(x))
    return reports[0]


def test_what_was_tuned_is_found_by_a_later_compilation_and_preferred(
    searched: Path, board_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = compiled(tune=True)
    (found,) = report.tuned
    assert found.winner == min(found.seconds, key=lambda name: found.seconds[name]) and len(found.seconds) > 1
    assert not found.measured and f"not measured: {BOARD} is emulated" in report.notes[-1]
    assert "µs (estimate, not measured)" in report.tuning_table() and found.winner in report.choice_table()
    other = next(name for name in found.seconds if name != found.winner)
    (question, kept) = json.loads(searched.read_text())
    searched.write_text(json.dumps([question, {**kept, "winner": other}]) + "\n")
    board_device._resources.pop(Tunings)
    monkeypatch.setattr(EstimateClock, "seconds", lambda *_: pytest.fail("it is known"))
    for tune in (True, False):
        again = compiled(tune=tune)
        assert again.choices[0].candidate == other and again.tuned[0].winner == other
        assert any("tune:" in note for note in again.notes) == tune


@pytest.mark.parametrize("damage", [b"\xff\x00", b'["question", {"winner": 1}]\n', b'["question", {"operation": "x"'])
def test_a_damaged_file_is_ignored(searched: Path, board_device: Any, damage: bytes, warnings_logged: Any) -> None:
    first = compiled(tune=True)
    searched.write_bytes(damage)
    board_device._resources.pop(Tunings)
    again = compiled(tune=True)
    assert again.tuned == first.tuned and again.code == first.code
    assert "damaged" in warnings_logged()[0]


def test_another_board_or_version_asks_again(board_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [tunings_path(board_device)]
    monkeypatch.setattr(board_device, "board", "another")
    names.append(tunings_path(board_device))
    monkeypatch.setattr("tt_dynamo.compiler.choices.version", lambda package: "0.82")
    names.append(tunings_path(board_device))
    assert len(set(names)) == 3


SCRIPT = f"""
import sys, torch
assert sys.argv[1:] == ["--rows", "512"] and __name__ == "__main__"
model = torch.nn.Sequential(torch.nn.Linear(1024, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 1024))
options = {{"device": {BOARD!r}, "dry_run": True, "tune": False}}
with torch.no_grad():
    torch.compile(model, backend="ttnn", options=options)(torch.zeros(int(sys.argv[2]), 1024))
sys.exit(3)
"""


def test_a_script_is_run_with_the_option_forced_on(fresh_process: FreshProcess, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = fresh_process.run(
        f"""
import contextlib, io, json, os, sys
from tt_dynamo.__main__ import main
sys.argv = ["tt_dynamo", "tune", {str(tmp_path / "script.py")!r}, "--rows", "512"]
printed, shown = io.StringIO(), io.StringIO()
with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(shown):
    try:
        main()
    except SystemExit as error:
        code = error.code
left = "TT_DYNAMO_TUNE" in os.environ
print(json.dumps({{"printed": printed.getvalue(), "shown": shown.getvalue(), "code": code, "left": left}}))
"""
    )
    head, *rows = done["printed"].splitlines()
    assert "candidate" in head and "estimate, not measured" in head and done["code"] == 3 and not done["left"]
    assert "ttnn.linear" in rows[0] and sum("winner" in row for row in rows) in (1, 2)
    assert "timing candidate 1 of" in done["shown"]
