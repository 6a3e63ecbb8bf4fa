"""Torch saves compiled programs as it saves Inductor's: another process loads them, and compiles nothing."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fresh_process import BOARD, FreshProcess
from torch import nn
from torch._dynamo.utils import counters
from torch._functorch import config
from torch._inductor.utils import fresh_cache

import tt_dynamo
from tt_dynamo.artifacts import output_code
from tt_dynamo.artifacts.files import Damaged
from tt_dynamo.artifacts.output_code import CompiledProgram, LoadError
from tt_dynamo.compiler.compile import Compiler
from tt_dynamo.devices.emulation.traces import EmulatedTrace
from tt_dynamo.runtime.program import Program

pytestmark = pytest.mark.usefixtures("clean_dynamo")

X = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
close = functools.partial(torch.testing.assert_close, atol=0.1, rtol=0.05)


@pytest.fixture(autouse=True)
def torch_saves() -> Iterator[None]:
    with fresh_cache(), config.patch(bundled_autograd_cache=True):
        yield


class Model(nn.Module):
    """A folded constant of weights, one of a literal, and a state that is written."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.register_buffer("total", torch.zeros(32, 128))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = nn.functional.linear(x, torch.cat([self.first.weight, self.second.weight]))
        self.total.add_(joined.relu() + torch.tensor([0.5, 1.0, 2.0, 0.25]).repeat(32))
        return self.total * 2


def started(module: nn.Module, x: torch.Tensor = X, **options: Any) -> tuple[torch.Tensor, list[tt_dynamo.GraphReport]]:
    torch._dynamo.reset()
    counters.clear()
    with tt_dynamo.record() as reports, torch.no_grad():
        y = torch.compile(module, backend="ttnn", dynamic=False, options={"device": BOARD, **options})(x)
    return y, reports


def hits() -> int:
    return counters["aot_autograd"]["autograd_cache_hit"]


MODEL = """
import json, sys, torch, tt_dynamo
from torch._functorch import config
torch.manual_seed(0)
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)
    def forward(self, x):
        joined = torch.nn.functional.linear(x, torch.cat([self.first.weight, self.second.weight]))
        return joined.relu() + torch.tensor([0.5, 1.0, 2.0, 0.25]).repeat(32)
model, x, options = Model(), torch.ones(32, 64), {"device": BOARD, "preset": "accuracy"}
torch.set_grad_enabled(False)
"""
SAVE = """
compiled = torch.compile(model, backend="ttnn", fullgraph=True, options=options)
function = compiled.forward.aot_compile(((x,), {}))
function.save_compiled_function("function")
with config.patch(bundled_autograd_cache=True):
    compiled(x)
contents, _ = torch.compiler.save_cache_artifacts()
open("artifacts", "wb").write(contents)
print(json.dumps({"aot_compile": (function(model, x) - model(x)).abs().max().item()}))
"""
LOAD = """
torch.compiler.load_cache_artifacts(open("artifacts", "rb").read())
with tt_dynamo.record() as reports:
    function = torch.compiler.load_compiled_function(open("function", "rb"))
    of_aot_compile = function(model, x)
assert "tt_dynamo.compiler.compile" not in sys.modules
import tt_dynamo.compiler.compile as compile
del compile.Compiler._compile
with tt_dynamo.record() as again, config.patch(bundled_autograd_cache=True):
    of_artifacts = torch.compile(model, backend="ttnn", fullgraph=True, options=options)(x)
with torch.no_grad():
    model.second.weight.mul_(-2)
errors = {"changed": (function(model, x) - model(x)).abs().max().item()}
model.second.weight.div_(-2)
errors |= {"aot_compile": (of_aot_compile - model(x)).abs().max().item()}
errors |= {"artifacts": (of_artifacts - model(x)).abs().max().item()}
print(json.dumps({"errors": errors, "from_cache": [report.from_cache for report in [*reports, *again]]}))
"""


def test_a_second_process_loads_both_kinds_and_compiles_nothing(fresh_process: FreshProcess) -> None:
    model = MODEL.replace("BOARD", repr(BOARD))
    first = fresh_process.run(model + SAVE, TORCHINDUCTOR_CACHE_DIR=str(fresh_process.cache / "first"))
    assert first["aot_compile"] < 0.05
    second = fresh_process.run(model + LOAD, TORCHINDUCTOR_CACHE_DIR=str(fresh_process.cache / "second"))
    assert second["from_cache"] == [True, True]
    assert max(second["errors"].values()) < 0.05, second["errors"]


def test_autograd_cache_gives_a_program_without_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    first, reports = started(Model())
    assert (hits(), reports[0].from_cache) == (0, False)
    monkeypatch.delattr(Compiler, "_compile")
    second, reports = started(Model())
    assert (hits(), [report.from_cache for report in reports]) == (1, [True])
    assert torch.equal(first, second)
    close(second, Model()(X))


def test_what_is_compiled_otherwise_is_another_entry() -> None:
    model = Model().eval()
    started(model)
    for x, options in (
        (X, {"optimize": "off"}),
        (X, {"weight_dtype": "bfloat8_b"}),
        (X, {"trace": True}),
        (X, {"dry_run": True}),
        (X.t().contiguous().t(), {}),
    ):
        started(model, x, **options)
        assert hits() == 0, options
        started(model, x, **options)
        assert hits() == 1, options


@pytest.mark.slow
def test_inductor_and_this_backend_do_not_take_each_others() -> None:
    torch._dynamo.reset()
    counters.clear()
    with torch.no_grad():
        torch.compile(nn.ReLU(), backend="inductor", dynamic=False)(X)
    _, reports = started(nn.ReLU())
    assert hits() == 0 and len(reports) == 1


def test_gradients_come_from_the_entry_as_well() -> None:
    found = []
    for _ in range(2):
        torch._dynamo.reset()
        counters.clear()
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        torch.manual_seed(0)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1)
        with tt_dynamo.record() as reports:
            torch.compile(model, backend="ttnn", options={"device": BOARD})(X).sum().backward()
        found.append((model[0].weight.grad, hits(), [report.from_cache for report in reports]))
    (first, *fresh), (second, *cached) = found
    assert fresh == [0, [False, False]] and cached == [1, [True, True]]
    assert torch.equal(first, second)


def test_a_program_of_another_version_is_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    started(Model())
    made_for = output_code._made_for
    monkeypatch.setattr(output_code, "_made_for", lambda device: {**made_for(device), "ttnn": "9.9"})
    y, reports = started(Model())
    assert (hits(), [report.from_cache for report in reports]) == (0, [False])
    close(y, Model()(X))


def saved_program(monkeypatch: pytest.MonkeyPatch) -> CompiledProgram:
    made: list[CompiledProgram] = []
    initialize = CompiledProgram.__init__

    def noted(self: CompiledProgram, *args: Any) -> None:
        initialize(self, *args)
        made.append(self)

    monkeypatch.setattr(CompiledProgram, "__init__", noted)
    started(Model())
    return made[0]


def test_what_does_not_run_here_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = saved_program(monkeypatch)
    made_for = output_code._made_for
    monkeypatch.setattr(output_code, "_made_for", lambda device: {**made_for(device), "ttnn": "9.9"})
    with pytest.raises(LoadError, match=r"compiled for ttnn .*, here 9.9: compile and save the model here"):
        saved.post_compile([], None, {})
    monkeypatch.undo()
    saved._contents = (saved._contents or b"")[:-1] + b"!"
    with pytest.raises(Damaged, match="a saved program is damaged"):
        saved.post_compile([], None, {})


def test_a_call_that_fails_runs_in_eager_torch(monkeypatch: pytest.MonkeyPatch, warnings_logged: Any) -> None:
    started(Model())
    initialize = Program.__post_init__

    def failing(*_: Any) -> Any:
        raise RuntimeError("TT_FATAL: a fault")

    def found(self: Program) -> None:
        initialize(self)
        self._forward = failing

    monkeypatch.setattr(Program, "__post_init__", found)
    model = Model()
    y, (report,) = started(model)
    eager = Model()
    close(y, eager(X))
    close(model.total, eager.total)
    assert hits() == 1 and len(report.fallbacks) > 2
    assert any("a call failed" in text for text in warnings_logged())


@torch.no_grad()
def test_a_replay_that_fails_runs_in_eager_torch_and_later_calls_replay(
    monkeypatch: pytest.MonkeyPatch, warnings_logged: Any
) -> None:
    model, replayed = nn.Sequential(nn.Linear(64, 64), nn.ReLU()), []
    replay = EmulatedTrace.replay

    def counted(self: EmulatedTrace) -> None:
        replayed.append(self)
        if len(replayed) == 2:
            raise RuntimeError("TT_FATAL: a fault")
        replay(self)

    monkeypatch.setattr(EmulatedTrace, "replay", counted)
    started(model, trace=True)
    torch._dynamo.reset()
    call = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD, "trace": True})
    with tt_dynamo.record() as reports:
        for scale in range(1, 7):
            close(call(X * scale), model(X * scale))
    (report,) = reports
    assert report.from_cache and report.trace == "captured" and len(replayed) == 5
    assert "a call failed" in warnings_logged()[-1]


class Sized(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x > 0] * 2


def test_what_cannot_be_saved_is_compiled_each_time() -> None:
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for _ in range(2):
            y, _ = started(Sized())
            assert hits() == 0
            assert torch.equal(y, Sized()(X))


def test_aot_compile_says_what_it_cannot_save() -> None:
    compiled = torch.compile(Sized(), backend="ttnn", fullgraph=True, options={"device": BOARD})
    with (
        torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True),
        pytest.raises(Exception, match='"ttnn" cannot save this program: it runs in eager torch'),
        torch.no_grad(),
    ):
        compiled.forward.aot_compile(((X,), {}))
    compiled = torch.compile(nn.ReLU(), backend="ttnn", fullgraph=True, dynamic=True, options={"device": BOARD})
    with pytest.raises(Exception, match="by aot_compile: its sizes vary"), torch.no_grad():
        compiled.forward.aot_compile(((X,), {}))
