"""A program whose device part is a trace.

The first call runs the program as it is, which puts all kernels into TTNN's cache. The second one makes the tensors
that every later call writes its inputs to, and captures the device part on them.
"""

import dataclasses
import functools
import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from tt_dynamo.devices import Device
from tt_dynamo.report.report import GraphReport
from tt_dynamo.runtime.traces.inputs import OneQueue, OnHost, Replays, TwoQueues
from tt_dynamo.runtime.traces.traces import Capture, Traces
from tt_dynamo.runtime.transfer import Border

log = logging.getLogger(__name__)

MOST_CAPTURES = 4  # of a program: for several models of one class, or caches in turn
NOT_YET = "not captured yet: the second call captures it"


@dataclasses.dataclass(frozen=True)
class TraceSource:
    """The text of a program's parts, and what they take; see `tt_dynamo.compiler.traces.parts.Parts`.

    queues: how many command queues they are given to.
    """

    source: str
    reads: dict[str, list[int]]
    goes_up: list[int]
    late: list[int]
    queues: int


Load = Callable[[str, Any, Sequence[str]], list[Callable[..., Any]]]


class TracedProgram:
    """Calls a program through traces; anything that is raised is for the caller to recover from."""

    def __init__(
        self, parts: TraceSource, inputs: int, device: Device, border: Border, report: GraphReport, load: Load
    ) -> None:
        self._parts, self._reads, self._inputs = parts, parts.reads, inputs
        self._device, self._border = device, border
        names = ("prepare", "upload", "constants", "run", "download")
        functions = load(parts.source, border.namespace, names)
        self._prepare, self._upload, self._constants, run, self._download = functions
        self._host = OnHost(self._upload, parts.goes_up)
        self._sources = len(set(parts.goes_up))
        check = None
        if device.emulated:
            (check,) = load(parts.source, device.namespace(dry_run=True), ("run",))
        self._trace = functools.partial(device.trace, run, check, border.dry_run)
        self._report = report
        self._traces = device.resource(Traces)
        self._captures = self._traces.add(self)
        self._refused = False
        self._warm_since: int | None = None  # `Traces.cleared` at the first call, which fills TTNN's cache
        self._written: OneQueue | TwoQueues | None = None  # the tensors for the inputs
        self._literals: Sequence[Any] = ()
        device.depend(self._traces)

    def __call__(self, forward: Callable[..., Any], handle: Any, args: list[Any], bound: list[Any]) -> Sequence[Any]:
        """forward: the program as it is. args: what it takes. bound: what holds those that lie on the device."""
        with self._traces.lock:
            bound = [bound[at - self._inputs] for at in self._reads["run"]]
            if self._refused or self._warm_since != self._traces.cleared or self._traces.has_lent(bound):
                results: Sequence[Any] = forward(handle, *args)
                self._warm_since = self._traces.cleared
                return results
            read, down = ([args[at] for at in self._reads[part]] for part in ("prepare", "download"))
            made = self._prepare(None, *read)
            up, values = made[: self._sources], made[self._sources :]
            capture = next((each for each in self._captures if each.is_of(bound)), None)
            if capture is None or self._traces.stale:
                capture = self._captured(capture, handle, up, bound)
                if capture.trace is None:
                    return forward(handle, *args)  # type: ignore[no-any-return]
            assert self._written is not None
            self._traces.before_replay()
            results = self._written.run(self._host.make(up), capture.trace)
            return self._download(handle, *results, *values, *down)  # type: ignore[no-any-return]

    def forget(self) -> None:
        """Let go of what is on the device; the next call makes it anew."""
        with self._traces.lock:
            for capture in self._captures:
                capture.release()
            self._captures.clear()
            self._free()

    def _captured(self, capture: Capture | None, handle: Any, up: Sequence[Any], bound: list[Any]) -> Capture:
        self._traces.release()  # nothing is allocated while there are traces
        if not self._captures:
            self._written = self._inputs_on_device(handle, up)
            self._literals = self._constants(handle)
        if capture is None:
            program = weakref.ref(self)
            given = functools.partial(_make, program, handle), functools.partial(_refuse, program), self._traces.drop
            capture = Capture(bound, *given)
            self._captures.append(capture)
            del self._captures[:-MOST_CAPTURES]
        self._traces.capture_all()
        if capture.trace is not None:
            self._report.trace = "captured"
        return capture

    def _inputs_on_device(self, handle: Any, up: Sequence[Any]) -> OneQueue | TwoQueues:
        self._host.reserve(self._device, self._border.dry_run, up)
        sets = [self._upload(handle, *up) for _ in range(self._parts.queues)]
        if self._parts.queues == 1:
            return OneQueue(self._border.namespace.copy_host_to_device_tensor, sets, self._parts.late)
        queues = self._device.queues(self._border.namespace, self._border.dry_run)
        return TwoQueues(queues, sets, self._parts.late)

    def _free(self) -> None:
        if self._written is not None:
            self._written.finish()
        self._written, self._literals = None, ()

    def make(self, handle: Any, tensors: list[Any]) -> Replays:
        """Traces that read these states and weights."""
        assert self._written is not None
        rest = [*self._literals, *tensors]
        return Replays(functools.partial(self._trace, handle, [*buffers, *rest]) for buffers in self._written.sets)

    def refuse(self, reason: str) -> None:
        """Run without a trace from now on."""
        if self._refused:
            return
        self._refused, self._report.trace = True, f"none: {reason}"
        for capture in self._captures:
            capture.release()
        self._free()
        log.warning("%s: no trace could be captured (%s); it runs without", self._report.name, reason)


def _make(program: weakref.ref[TracedProgram], handle: Any, tensors: list[Any]) -> Any:
    found = program()
    assert found is not None
    return found.make(handle, tensors)


def _refuse(program: weakref.ref[TracedProgram], reason: str) -> None:
    found = program()
    if found is not None:
        found.refuse(reason)
