"""Programs whose device part is captured once and replayed: eager's values, whatever changes between the calls."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from comparison import assert_same
from small_models import Attention
from test_faults import FATAL, WORDS

import tt_dynamo
from tt_dynamo.devices import Device
from tt_dynamo.devices.emulation import traces as emulation
from tt_dynamo.runtime.traces import traces as runtime
from tt_dynamo.runtime.traces.traces import Traces

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def mlp(*sizes: int) -> torch.nn.Module:
    layers = [torch.nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)]
    return torch.nn.Sequential(*(part for layer in layers for part in (layer, torch.nn.GELU())))


def traced(model: Any, **options: Any) -> Callable[..., Any]:
    compiled = torch.compile(model, backend="ttnn", dynamic=False, options={"trace": True, **options})

    @torch.no_grad()
    def call(*inputs: Any) -> Any:
        return compiled(*inputs)

    return call


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The traces that are captured during the test."""
    made: list[Any] = []
    capture = Device.trace

    def counted(self: Device, *args: Any) -> Any:
        made.append(capture(self, *args))
        return made[-1]

    monkeypatch.setattr(Device, "trace", counted)
    return made


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The traces that are replayed during the test, in turn."""
    made: list[Any] = []
    replay = emulation.EmulatedTrace.replay

    def counted(self: Any) -> None:
        made.append(self)
        replay(self)

    monkeypatch.setattr(emulation.EmulatedTrace, "replay", counted)
    return made


@torch.no_grad()
def test_every_call_from_the_second_is_a_replay_with_the_values_of_a_program_without(
    captures: list[Any], replays: list[Any]
) -> None:
    model = Attention().eval()
    mask = torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
    plain, call = torch.compile(copy.deepcopy(model), backend="ttnn"), traced(model)
    with tt_dynamo.record() as reports:
        for _ in range(5):
            ids = torch.randint(0, 10, (2, 8))
            assert all(map(torch.equal, call(ids, mask), plain(ids, mask)))
    assert (len(captures), len(replays)) == (1, 4)
    assert sorted(report.trace for report in reports) == ["", "captured"]
    assert "captured" in str(next(report for report in reports if report.trace))


def test_a_result_of_one_call_is_not_that_of_the_next(replays: list[Any]) -> None:
    model = mlp(32, 32)
    call = traced(model)
    inputs = [torch.randn(4, 32) for _ in range(4)]
    results = [call(x) for x in inputs]
    for x, result in zip(inputs, results, strict=True):
        assert_same(result, model(x).detach())
    assert len(replays) == 3


@torch.no_grad()
def test_a_changed_weight_is_written_where_the_trace_reads_it(captures: list[Any], replays: list[Any]) -> None:
    model, x = mlp(32, 32), torch.randn(4, 32)
    call = traced(model)
    for _ in range(3):
        assert_same(call(x), model(x))
    model[0].weight.mul_(-2)
    assert_same(call(x), model(x))
    assert (len(captures), len(replays)) == (1, 3)


def test_two_models_of_one_program_in_turns_have_a_trace_each(captures: list[Any], replays: list[Any]) -> None:
    models, x = [mlp(32, 32) for _ in range(2)], torch.randn(4, 32)
    calls = [traced(model) for model in models]
    for _ in range(4):
        for model, call in zip(models, calls, strict=True):
            assert_same(call(x), model(x).detach())
    before = len(captures)
    for _ in range(4):
        for model, call in zip(models, calls, strict=True):
            assert_same(call(x), model(x).detach())
    assert len(captures) == before and len(replays) >= 8


def test_a_program_compiled_later_has_all_captured_anew_once(captures: list[Any]) -> None:
    models, x = [mlp(32, 32), mlp(32, 64), mlp(32, 96)], torch.randn(4, 32)
    calls = [traced(model) for model in models]
    for count, call in enumerate(calls, start=1):
        captures.clear()
        for _ in range(3):
            call(x)
        assert len(captures) == count
    captures.clear()
    for model, call in zip(models, calls, strict=True):
        assert_same(call(x), model(x).detach())
    assert not captures


def keep_compiling(monkeypatch: pytest.MonkeyPatch, device: Device, calls: int) -> None:
    """Compile five models, each for so many calls, of which the third capture of all traces would be warned of."""
    monkeypatch.setattr(runtime, "WARN_AFTER", 3)
    monkeypatch.setattr(device.resource(Traces), "_rounds", 0)
    for size in range(1, 6):
        call = traced(mlp(32, 32 * size))
        for _ in range(calls):
            call(torch.randn(4, 32))


def test_a_loop_that_keeps_compiling_is_warned_once(
    warnings_logged: Any, monkeypatch: pytest.MonkeyPatch, board_device: Device
) -> None:
    keep_compiling(monkeypatch, board_device, calls=2)
    (warning,) = warnings_logged()
    assert "captured 3 times" in warning


def test_compiling_now_and_then_is_no_reason_to_warn(
    warnings_logged: Any, monkeypatch: pytest.MonkeyPatch, board_device: Device
) -> None:
    monkeypatch.setattr(runtime, "PAYS_AFTER", 2)
    keep_compiling(monkeypatch, board_device, calls=4)
    assert not warnings_logged()


def test_the_trace_of_a_model_that_is_gone_is_released(
    captures: list[Any], board_device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[Any] = []
    release = emulation.EmulatedTrace.release
    monkeypatch.setattr(emulation.EmulatedTrace, "release", lambda self: (released.append(self), release(self)))
    models, x = [mlp(32, 32), mlp(32, 64)], torch.randn(4, 32)
    calls = [traced(model) for model in models]
    for _ in range(3):
        for call in calls:
            call(x)
    released.clear()
    torch._dynamo.reset()
    del calls, call
    gc.collect()
    assert len(released) == 2
    assert not board_device.resource(Traces).captured


def test_what_is_left_of_several_models_is_replayed_on_when_one_is_gone(
    captures: list[Any], replays: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[Any] = []
    release = emulation.EmulatedTrace.release
    monkeypatch.setattr(emulation.EmulatedTrace, "release", lambda self: (released.append(self), release(self)))
    kept, gone, x = mlp(32, 32), mlp(32, 64), torch.randn(4, 32)
    calls = [traced(model) for model in (kept, gone)]
    for _ in range(3):
        for call in calls:
            call(x)
    for record in (captures, replays, released):
        record.clear()
    del gone, call, calls[1]
    gc.collect()
    assert len(released) == 1
    for _ in range(3):
        assert_same(calls[0](x), kept(x).detach())
        x = x * 2
    assert not captures and len(replays) == 3


def test_what_programs_had_on_the_device_is_freed_with_their_models_and_the_rest_by_a_reset(bytes_in_use: Any) -> None:
    def free() -> list[int]:
        gc.collect()
        return bytes_in_use()

    empty = free()
    model = mlp(32, 64)
    call = traced(model)
    for _ in range(3):
        call(torch.randn(4, 32))
    used = free()
    del model, call
    assert all(now <= before for now, before in zip(free(), used, strict=True)) and free() != used
    torch._dynamo.reset()
    assert free() == empty


def test_a_node_on_the_host_between_those_of_the_device_is_named(warnings_logged: Any) -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.linalg.eigvalsh(torch.exp(x)) + 1)

    x = torch.randn(32, 32)
    with tt_dynamo.record() as reports:
        call = traced(model, placement="device")
        for _ in range(3):
            assert_same(call(x), model(x))
    assert "the host computes" in reports[0].trace
    assert any("no trace" in warning and "the host computes" in warning for warning in warnings_logged())


def test_1000_replays_leave_the_memory_as_it_is(bytes_in_use: Any) -> None:
    call, x = traced(mlp(32, 32), dry_run=True), torch.randn(4, 32)
    for _ in range(3):
        call(x)
    gc.collect()
    before = bytes_in_use()
    for _ in range(1000):
        call(x)
    assert bytes_in_use() == before


def test_four_threads_on_one_model_get_each_its_result(replays: list[Any]) -> None:
    model = mlp(32, 32)
    call = traced(model)
    call(torch.randn(4, 32))

    def work(seed: int) -> None:
        for _ in range(10):
            x = torch.randn(4, 32)
            assert_same(call(x), model(x).detach())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(replays) == 40


class Faults:
    """Raises at call number `at` of what is patched to call `before`."""

    def __init__(self) -> None:
        self.count = self.at = 0

    def set(self, at: int = 0) -> None:
        self.count, self.at = 0, at

    def before(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise RuntimeError(FATAL)


class Faulty:
    def __init__(self, module: Any, faults: Faults) -> None:
        self._module, self._faults = module, faults

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if name in ("transformer", "experimental"):
            return Faulty(found, self._faults)
        if isinstance(found, type) or not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._faults.before()
            return found(*args, **kwargs)

        return call


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """At every call of a program's parts, also while they are checked for a capture; compilations have none."""
    faults = Faults()
    from tt_dynamo.runtime import program

    load = program.load_functions
    monkeypatch.setattr(
        program, "load_functions", lambda source, ttnn, *rest: load(source, Faulty(ttnn, faults), *rest)
    )
    copy_up = Device.namespace

    def namespace(self: Device, dry_run: bool = False) -> Any:
        return copy_up(self, dry_run) if dry_run else Faulty(copy_up(self), faults)

    monkeypatch.setattr(Device, "namespace", namespace)
    return faults


def test_a_fault_at_every_call_of_a_replay_gives_eager_s_answer_and_a_working_next_call(
    faults: Faults, warnings_logged: Any, replays: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "WARN_AFTER", 0)  # each fault has all captured anew
    torch.manual_seed(0)
    model, mask = Attention().eval(), torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
    with torch.no_grad():
        inputs = [torch.randint(0, 10, (2, 8)) for _ in range(3)]
        eager = [model(ids, mask) for ids in inputs]
    call = traced(copy.deepcopy(model))
    for ids in (*inputs, inputs[0]):
        faults.set()
        call(ids, mask)
    count = faults.count
    assert count > 15
    for number in range(1, count + 1):
        faults.set(at=number)
        assert_same(call(inputs[1], mask), eager[1])
        (warning,) = warnings_logged()
        assert WORDS in warning
        faults.set()
        replays.clear()
        for ids, expected in zip(inputs, eager, strict=True):
            assert_same(call(ids, mask), expected)
        assert len(replays) == 3
    assert not warnings_logged()


@pytest.mark.parametrize("calls_before", [0, 1], ids=["warm run", "capture"])
def test_a_fault_at_every_call_of_a_capture_gives_eager_s_answer_and_a_working_next_call(
    faults: Faults, warnings_logged: Any, calls_before: int
) -> None:
    model, inputs = mlp(32, 32), [torch.randn(4, 32) for _ in range(3)]

    def ready() -> Callable[..., Any]:
        torch._dynamo.reset()
        faults.set()
        call = traced(copy.deepcopy(model))
        for _ in range(calls_before):
            call(inputs[0])
        faults.set()
        return call

    ready()(inputs[1])
    count = faults.count
    assert count > 3
    for number in range(1, count + 1):
        call = ready()
        faults.set(at=number)
        assert_same(call(inputs[1]), model(inputs[1]).detach())
        (warning,) = warnings_logged()
        assert WORDS in warning
        faults.set()
        for x in inputs:
            assert_same(call(x), model(x).detach())
        assert not warnings_logged()


def test_a_capture_that_is_refused_leaves_the_program_as_it_is(
    warnings_logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a device that its user opened with a trace region too small."""

    def refuse(*_: Any) -> None:
        raise RuntimeError(FATAL.replace(WORDS, "Creating trace buffers of size 4096B, but only 64B is allocated"))

    monkeypatch.setattr(Device, "trace", refuse)
    model, x = mlp(32, 32), torch.randn(4, 32)
    call = traced(model)
    with tt_dynamo.record() as reports:
        for _ in range(4):
            assert_same(call(x), model(x).detach())
    (warning,) = warnings_logged()
    assert "trace buffers of size" in warning
    assert "trace buffers of size" in reports[0].trace


def test_a_shape_that_was_not_captured_is_compiled_and_captured(captures: list[Any], replays: list[Any]) -> None:
    model = mlp(32, 32)
    call = traced(model)
    for _ in range(3):
        for rows in (4, 8):
            x = torch.randn(rows, 32)
            assert_same(call(x), model(x).detach())
    assert len(replays) == 4
