"""The option `queues`: a second queue writes the inputs of traced programs, in an order that the ledger checks."""

from __future__ import annotations

import copy
import gc
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from comparison import assert_close, assert_same
from small_models import Attention, Feedforward

import tt_dynamo
from tt_dynamo.devices import Device, EmulationError
from tt_dynamo.devices.emulation.queues import Clocks, EmulatedQueues
from tt_dynamo.devices.queues import PROGRAMS, WRITES, HardwareQueues
from tt_dynamo.ir.errors import FallbackError
from tt_dynamo.runtime.caches import DeviceTensor
from tt_dynamo.runtime.traces import traces as runtime
from tt_dynamo.runtime.traces.inputs import Replays, TwoQueues

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def compiled(model: Any, **options: Any) -> Any:
    options = {"trace": True, "queues": 2, "fallback": "error", **options}
    return torch.no_grad()(torch.compile(model, backend="ttnn", dynamic=False, options=options))


@pytest.mark.parametrize("outputs", ["host", "device"])
@torch.no_grad()
def test_two_queues_give_what_one_gives(outputs: str) -> None:
    model, mask = Attention().eval(), torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
    inputs = [torch.randint(0, 10, (2, 8)) for _ in range(6)]
    with tt_dynamo.record() as reports:
        one, two = compiled(copy.deepcopy(model), queues=1), compiled(model, outputs=outputs)
        expected = [one(ids, mask) for ids in inputs]
        results = [two(ids, mask) for ids in inputs]  # none is read before the last call
    assert [report.trace for report in reports] == ["captured", "captured"]
    assert not any("queue" in note for report in reports for note in report.notes)
    for result, other in zip(results, expected, strict=True):
        assert all(map(torch.equal, result, other))


@torch.no_grad()
def test_late_results_are_tensors_for_torch_and_other_models() -> None:
    first, second, x = Feedforward(), torch.nn.Tanh(), torch.randn(4, 32)
    models = [compiled(model, outputs="device") for model in (first, second)]
    for scale in range(1, 6):
        late = models[0](x * scale)
        assert type(late) is DeviceTensor
        largest = late.argmax(-1)
        assert_close(models[1](late), second(first(x * scale)))
        assert torch.equal(largest, late.clone().argmax(-1))


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the queues are given during the test, in the host's order."""
    log: list[str] = []

    def logged(name: str) -> None:
        real = getattr(EmulatedQueues, name)
        monkeypatch.setattr(EmulatedQueues, name, lambda *args: (log.append(name), real(*args))[1])

    for name in ("write", "execute"):
        logged(name)
    return log


@torch.no_grad()
def test_a_stream_gives_the_next_batch_to_the_queues_before_a_result_is_read(commands: list[str]) -> None:
    model, batches = Feedforward(), [torch.randn(4, 32) for _ in range(6)]
    call = compiled(model, outputs="device")
    for batch in batches[:2]:
        call(batch)
    commands.clear()
    found = []
    for result in tt_dynamo.stream(call, iter(batches)):
        commands.append("read")
        found.append(result.clone())
    assert commands == ["write", "execute"] + ["write", "execute", "read"] * 5 + ["read"]
    for result, batch in zip(found, batches, strict=True):
        assert_same(result, model(batch))


DROPPED = {
    "the replay does not wait for its inputs": (PROGRAMS, "queue 0 reads a tensor that queue 1 may not have written"),
    "the inputs do not wait for the last replay": (
        WRITES,
        "queue 1 writes over a tensor that queue 0 may not have read",
    ),
}


@pytest.mark.parametrize(("queue", "said"), DROPPED.values(), ids=DROPPED)
def test_an_order_that_is_broken_is_an_error(queue: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call, x = compiled(Feedforward(), outputs="device"), torch.randn(4, 32)
    for _ in range(4):  # both sets were read
        call(x)
    wait = EmulatedQueues.wait
    monkeypatch.setattr(EmulatedQueues, "wait", lambda self, to, event: to != queue and wait(self, to, event))
    with pytest.raises(FallbackError, match=said):
        for _ in range(2):
            call(x)


def test_the_ledger_knows_what_the_host_waited_for() -> None:
    """As where a result was read: the replay that it is of is over, and so is what that one read."""
    namespace = SimpleNamespace(copy_host_to_device_tensor=lambda *_: None)
    queues = EmulatedQueues(None, namespace, Clocks(), computes=False)
    trace = SimpleNamespace(reads=[7], outputs=[], replay=lambda: None)
    tensor = SimpleNamespace(buffer_unique_id=lambda: 7)
    queues.execute(trace)
    with pytest.raises(EmulationError, match="no event orders the two"):
        queues.write(None, tensor)
    queues.finish()
    queues.write(None, tensor)
    with pytest.raises(EmulationError, match="may not have written"):
        queues.execute(trace)


def test_hardware_is_given_the_order_that_the_ledger_checks() -> None:
    given: list[Any] = []

    class Calls:
        def __getattr__(self, name: str) -> Any:
            def call(*args: Any, **kwargs: Any) -> str:
                given.append((name, *(a for a in args if a != "device"), *kwargs.values()))
                return f"event {len(given)}"

            return call

    class Output:
        def cpu(self, blocking: bool, cq_id: int) -> str:
            given.append(("cpu", blocking, cq_id))
            return "host"

    class Trace:
        outputs = (Output(),)

        def replay(self) -> None:
            given.append(("execute_trace",))

    queues = TwoQueues(HardwareQueues(Calls(), "device"), [["a"], ["b"]], late=[0])
    assert given == [("record_event", 0), ("record_event", 0)]
    replays = Replays([Trace, Trace])
    for at, buffer in enumerate("ab"):
        given.clear()
        (result,) = queues.run(["x"], replays)
        assert [command[0] for command in given] == [
            "wait_for_event", "copy_host_to_device_tensor", "record_event", "wait_for_event", "execute_trace",
            "record_event", "cpu", "record_event",
        ]  # fmt: skip
        assert given[:4] == [
            ("wait_for_event", 1, f"event {at + 1}"),
            ("copy_host_to_device_tensor", "x", buffer, 1),
            ("record_event", 1),
            ("wait_for_event", 0, "event 3"),
        ]
        assert given[5:] == [("record_event", 0), ("cpu", False, 0), ("record_event", 0)]
        assert result.wait() == "host"
        assert given[-1] == ("event_synchronize", "event 8")


def test_a_fault_in_a_replay_gives_eager_s_answer_and_working_calls(
    monkeypatch: pytest.MonkeyPatch, warnings_logged: Any
) -> None:
    monkeypatch.setattr(runtime, "WARN_AFTER", 0)  # each fault has all captured anew
    model, x = Feedforward(), torch.randn(4, 32)
    call = compiled(model, fallback="torch", outputs="device")
    expected = model(x).detach()
    for name in ("write", "execute", "read"):
        for _ in range(4):
            assert_close(call(x), expected)
        assert not warnings_logged()
        with monkeypatch.context() as patch:
            patch.setattr(EmulatedQueues, name, lambda *_: 1 / 0)
            assert_close(call(x), expected)
        assert "division by zero" in warnings_logged()[0]


def test_300_calls_leave_the_memory_as_it_is(bytes_in_use: Any) -> None:
    call, x = compiled(Feedforward(), dry_run=True, outputs="device"), torch.randn(4, 32)
    for _ in range(3):
        call(x)
    gc.collect()
    before = bytes_in_use()
    for _ in range(300):
        call(x)
    gc.collect()
    assert bytes_in_use() == before


def test_a_second_queue_without_a_trace_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 32)
    with tt_dynamo.record() as reports:
        compiled(Feedforward(), trace=False)(x)
    assert any("takes effect with trace=True" in note for note in reports[0].notes)
    monkeypatch.setattr(Device, "has_two_queues", False)
    model = Feedforward()
    torch._dynamo.reset()
    with tt_dynamo.record() as reports:
        call = compiled(model)
        for _ in range(3):
            assert_same(call(x), model(x).detach())
    assert reports[0].trace == "captured"
    assert any("was opened with one command queue" in note for note in reports[0].notes)
