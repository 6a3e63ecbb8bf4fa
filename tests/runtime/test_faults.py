"""TTNN raises while a program runs: eager's answer and one warning, or one clear exception with fallback="error".

Each call of a small model fails in turn, in the emulated namespace, with the words TTNN has for a full memory.
"""

from __future__ import annotations

import copy
import gc
import itertools
import linecache
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from comparison import assert_same, shared_memory
from small_models import Attention

import tt_dynamo
from tt_dynamo.devices import Device
from tt_dynamo.devices.emulation.namespace import Namespace
from tt_dynamo.ir.errors import FallbackError
from tt_dynamo.ir.uses import Settings
from tt_dynamo.lowering import registry
from tt_dynamo.runtime.recovery import LoweringNamespace

WORDS = "Out of Memory: Not enough space to allocate 4096 B DRAM buffer"
FATAL = f"TT_FATAL @ /project/tt_metal/impl/allocator/bank_manager.cpp:140: false\ninfo:\n{WORDS}\nbacktrace:\n --- ..."

pytestmark = pytest.mark.usefixtures("clean_dynamo")


class Faults:
    """Counts the calls of a namespace, and raises at call number `at` (counted from 1), or at all of `always`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.at = 0
        self.always = ""

    def set(self, at: int = 0, always: str = "") -> None:
        self.calls.clear()
        self.at, self.always = at, always

    def before(self, path: str) -> None:
        self.calls.append(path)
        if len(self.calls) == self.at or path == self.always:
            raise RuntimeError(FATAL)


class Faulty:
    """A namespace whose calls may fail."""

    def __init__(self, module: Any, faults: Faults, path: str = "ttnn") -> None:
        self._module, self._faults, self._path = module, faults, path

    def __getattr__(self, name: str) -> Any:
        found, path = getattr(self._module, name), f"{self._path}.{name}"
        if isinstance(found, Namespace):
            return Faulty(found, self._faults, path)
        if isinstance(found, type) or not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._faults.before(path)
            return found(*args, **kwargs)

        return call


@pytest.fixture
def faults(board_device: Device, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    faults = Faults()
    namespace = Device.namespace

    def faulty(self: Device, dry_run: bool = False) -> Any:
        return namespace(self, dry_run) if dry_run else Faulty(namespace(self), faults)

    monkeypatch.setattr(Device, "namespace", faulty)
    return faults


class Case:
    """A model, its inputs and eager's answer."""

    def __init__(self) -> None:
        self.model = Attention().eval()
        self.inputs = (torch.randint(0, 10, (2, 8)), torch.tensor([[True] * 8, [True] * 5 + [False] * 3]))
        with torch.no_grad():
            self.eager = self.model(*self.inputs)

    def compiled(self, **options: Any) -> Callable[[], Any]:
        compiled = torch.compile(copy.deepcopy(self.model), backend="ttnn", options=options or None)

        def call() -> Any:
            with torch.no_grad():
                return compiled(*self.inputs)

        return call


@pytest.fixture
def case() -> Case:
    torch.manual_seed(0)
    return Case()


def test_a_fault_at_every_call_gives_eager_s_answer_and_one_warning(
    case: Case, faults: Faults, warnings_logged: Any
) -> None:
    call = case.compiled()
    call()
    faults.set()
    call()
    operations = list(faults.calls)
    assert len(operations) > 15
    for number, operation in enumerate(operations, start=1):
        faults.set(at=number)
        assert_same(call(), case.eager)
        assert faults.calls[number - 1] == operation
        (warning,) = warnings_logged()
        assert WORDS in warning and "TT_FATAL" not in warning
        faults.set()
        assert_same(call(), case.eager)
    assert not warnings_logged()
    assert [path for path in faults.calls if path != "ttnn.from_torch"][-1] == operations[-1]


def test_an_operation_that_always_fails_runs_in_eager_torch_and_is_reported(
    case: Case, faults: Faults, warnings_logged: Any
) -> None:
    call = case.compiled()
    with tt_dynamo.record() as (reports):
        call()
    (report,) = reports
    for operation in sorted(set(faults.calls) - {"ttnn.from_torch", "ttnn.to_torch"}):
        report.fallbacks.clear()
        faults.set(always=operation)
        assert_same(call(), case.eager)
        (warning,) = warnings_logged()
        assert "ran in eager torch" in warning
        assert {fallback.kind for fallback in report.fallbacks} == {"runtime"}
        assert all(WORDS in fallback.reason and fallback.node in warning for fallback in report.fallbacks)


@pytest.mark.parametrize("crossing", ["ttnn.from_torch", "ttnn.to_torch"])
def test_a_device_that_nothing_reaches_any_more_leaves_everything_to_eager_torch(
    case: Case, faults: Faults, warnings_logged: Any, crossing: str
) -> None:
    call = case.compiled()
    call()
    faults.set(always=crossing)
    assert_same(call(), case.eager)
    assert len(warnings_logged()) == 1


def test_a_fault_at_every_upload_of_a_weight(case: Case, faults: Faults, warnings_logged: Any) -> None:
    call = case.compiled()
    call()
    first = len(faults.calls)
    faults.set()
    call()
    usual = len(faults.calls)
    assert first > usual
    for number in range(1, first - usual + 1):
        torch._dynamo.reset()
        call = case.compiled()
        faults.set(at=number)
        assert_same(call(), case.eager)
        assert len(warnings_logged()) == 1
        assert_same(call(), case.eager)
        faults.set()
        assert_same(call(), case.eager)
        assert len(faults.calls) == usual, "all weights are on the device again"
        assert not warnings_logged()


def test_a_fault_while_a_changed_weight_of_two_graphs_goes_up(
    board_device: Device, faults: Faults, warnings_logged: Any
) -> None:
    model = torch.nn.Linear(32, 32)
    compiled = torch.compile(model, backend="ttnn", dynamic=False)
    inputs = [torch.randn(rows, 32) for rows in (4, 8)]
    with torch.no_grad():
        for x in inputs:
            compiled(x)
        model.weight.mul_(-2)
        faults.set(at=1)
        assert_same(compiled(inputs[0]), model(inputs[0]))
        assert len(warnings_logged()) == 1
        faults.set()
        for x in (*inputs, *inputs):
            assert_same(compiled(x), model(x))
    assert not warnings_logged()


def test_forbidden_fallback_is_one_clear_error_and_the_next_call_works(case: Case, faults: Faults) -> None:
    call = case.compiled(fallback="error")
    call()
    faults.set()
    call()
    for number in range(1, len(faults.calls) + 1):
        faults.set(at=number)
        with pytest.raises(FallbackError, match=r"Out of Memory.*fallback=\"error\""):
            call()
        faults.set()
        assert_same(call(), case.eager)


def test_a_fault_in_the_backward_graph(case: Case, faults: Faults, warnings_logged: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.GELU(), torch.nn.Linear(32, 32))
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="ttnn")
    x = torch.randn(4, 32)
    eager(x).square().sum().backward()
    compiled(x).square().sum().backward()
    model.zero_grad()
    loss = compiled(x).square().sum()
    faults.set(at=3)
    loss.backward()
    assert_same([p.grad for p in model.parameters()], [p.grad for p in eager.parameters()])
    assert len(warnings_logged()) == 1


def test_a_lowering_that_fails_leaves_its_node_to_eager_torch(
    board_device: Device, warnings_logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in a lowering, as a division by the rank 0: reported, with one warning, and never the user's error."""

    def broken(ttnn: Any, x: Any) -> Any:
        return x.shape[len(x.shape) % 0]

    target = torch.ops.aten.relu.default
    monkeypatch.setitem(registry._lowerings, target, registry.Lowering(broken, {}, "TILE"))
    x = torch.randn(4, 32)
    with tt_dynamo.record() as reports:
        assert_same(torch.compile(lambda x: torch.exp(torch.relu(x)), backend="ttnn")(x), torch.exp(torch.relu(x)))
    (fallback,) = reports[0].fallbacks
    assert fallback.node == "relu" and "ZeroDivisionError" in fallback.reason
    (warning,) = warnings_logged()
    assert "relu" in warning and "ZeroDivisionError" in warning


def test_an_interrupt_is_not_a_fault(case: Case, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    call = case.compiled()
    call()

    def interrupt(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(faults, "before", interrupt)
    with pytest.raises(KeyboardInterrupt):
        call()
    monkeypatch.undo()
    assert_same(call(), case.eager)


def test_what_comes_out_of_a_fault_lies_in_memory_as_eager_s(faults: Faults, warnings_logged: Any) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(4, 8))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = torch.relu(x * self.weight)
            copies = y.clone(), y.t().contiguous(), x.clone(), self.weight * 2, torch.ones(1).expand(4, 4)
            return y, y.t(), (x.t() * 2).transpose(0, 1), *copies, *torch.exp(x).split(2)

    model = Model()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="ttnn")
    x = torch.randn(4, 8)
    with torch.no_grad():
        eager = model(x)
        for number in (0, 2, 3, 4):
            faults.set(at=number)
            ours = compiled(x)
            assert_same(ours, eager)
            assert shared_memory(ours, (x, model.weight)) == shared_memory(eager, (x, model.weight))
            assert len(warnings_logged()) == (number > 0)
            for output in (*ours[3:7], *ours[8:]):
                output.fill_(7)  # belongs to the caller now


def test_fifty_calls_that_fail_leave_one_entry_a_node_with_their_count_and_the_last_reason(
    case: Case, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = case.compiled()
    with tt_dynamo.record() as reports:
        call()
    fallbacks = reports[0].fallbacks
    raised = itertools.count(1)

    def fail(path: str) -> None:
        if path == "ttnn.layer_norm":
            raise RuntimeError(FATAL.replace("4096", str(next(raised))))

    monkeypatch.setattr(faults, "before", fail)
    for _ in range(50):
        assert_same(call(), case.eager)
    (fallback,) = fallbacks
    assert (fallback.kind, fallback.count) == ("runtime", 50)
    assert fallback.reason == WORDS.replace("4096", str(next(raised) - 1))
    assert f"{fallback.node}  [runtime]  in 50 calls" in str(reports[0])


def test_threads_that_fail_at_once_report_each_its_own_node(
    board_device: Device, faults: Faults, warnings_logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.exp(torch.sin(x))

    compiled = torch.compile(model, backend="ttnn")
    x = torch.randn(4, 32)
    with torch.no_grad(), tt_dynamo.record() as reports:
        compiled(x)
    mine, barrier = threading.local(), threading.Barrier(2)

    def fail(path: str) -> None:
        if path == getattr(mine, "fails", ""):
            barrier.wait(60)  # both are in the program, then both in their recovery
            raise RuntimeError(FATAL)

    @torch.no_grad()
    def call(operation: str) -> None:
        mine.fails = operation
        assert_same(compiled(x), model(x))

    monkeypatch.setattr(faults, "before", fail)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(call, ("ttnn.exp", "ttnn.sin")))
    assert sorted((f.node, f.count) for f in reports[0].fallbacks) == [("exp", 1), ("sin", 1)]
    assert sorted(warning.split("; ")[-1] for warning in warnings_logged()) == [
        "exp ran in eager torch",
        "sin ran in eager torch",
    ]


def test_what_a_lowering_notes_for_the_compiler_is_not_kept_by_a_recovery() -> None:
    settings = Settings(None, None, (8, 8))
    noted = LoweringNamespace(None, settings).settings.wants_block_sharding
    noted.append(object())
    assert not noted and not settings.wants_block_sharding


def test_the_text_of_a_program_goes_with_it(board_device: Device) -> None:
    def texts() -> list[str]:
        gc.collect()
        return [name for name in linecache.cache if name.startswith("<tt_dynamo program")]

    torch._dynamo.reset()
    before = texts()
    compiled = torch.compile(torch.relu, backend="ttnn", dynamic=False)
    for rows in range(1, 6):
        compiled(torch.randn(rows, 32))
    assert len(texts()) == len(before) + 5
    del compiled
    torch._dynamo.reset()
    assert texts() == before
