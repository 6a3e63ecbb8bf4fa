"""A compiled graph: the function that Dynamo calls.

Each call compares the parameters' stamps, calls the generated function, and returns. Everything else (uploading what
changed, running on after a failure) happens off this path.
"""

import dataclasses
import functools
import itertools
import linecache
import logging
import operator
import re
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tt_dynamo.devices import Device
from tt_dynamo.devices.direct import direct
from tt_dynamo.ir.errors import FallbackError
from tt_dynamo.ir.spec import Spec
from tt_dynamo.ir.ttnn_internals import lacks_l1_small, ttnn_reason
from tt_dynamo.ir.uses import StateUse, WeightUse
from tt_dynamo.report.report import Fallback, GraphReport
from tt_dynamo.runtime.caches import Copy, Residents, fetch, give, owner_of
from tt_dynamo.runtime.recovery import Recovery
from tt_dynamo.runtime.traces.program import TracedProgram, TraceSource
from tt_dynamo.runtime.traces.traces import Traces
from tt_dynamo.runtime.weights import Stamps, Weight, WeightStore

log = logging.getLogger(__name__)

_serial = itertools.count()


def load(source: str, namespace: Any, path: Path | None = None) -> Callable[..., tuple[Any, ...]]:
    """The `forward` of a program's text, bound to a TTNN namespace; tracebacks show its lines while it lives.

    path: the file that it was read from. Raises SyntaxError, KeyError without a `forward`, and what its text raises.
    """
    return load_functions(source, namespace, ("forward",), path)[0]


def load_functions(
    source: str, namespace: Any, functions: Sequence[str], path: Path | None = None
) -> list[Callable[..., tuple[Any, ...]]]:
    """Functions of a program's text by their names; see `load`."""
    name = f"<tt_dynamo program {next(_serial)}>" if path is None else str(path)
    scope: dict[str, Any] = {"ttnn": direct(namespace), "__name__": "program", "__file__": name}
    exec(compile(re.sub(r"^import ttnn\n", "\n", source, count=1, flags=re.MULTILINE), name, "exec"), scope)
    found: list[Callable[..., tuple[Any, ...]]] = [scope[function] for function in functions]
    if path is None:
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        weakref.finalize(found[0], linecache.cache.pop, name, None)
    return found


@dataclasses.dataclass(frozen=True)
class Uploaded:
    """What a program reads of its parameters as they were at `stamps`.

    owners: the parameters themselves, weakly. weights: what keeps the store from dropping the `tensors`.
    """

    stamps: Stamps
    owners: list[weakref.ref[torch.Tensor]]
    weights: list[Weight]
    tensors: list[Any]

    def survives(self, pointers: list[int]) -> bool:
        """Whether another module than that with parameters at `pointers` lives on with these, none of them replaced."""
        alive = [owner.data_ptr() for reference in self.owners if (owner := reference()) is not None]
        return alive == self.stamps.pointers and alive != pointers

    @property
    def is_gone(self) -> bool:
        """Whether none of the parameters is left, if there were any."""
        return bool(self.owners) and all(owner() is None for owner in self.owners)


@dataclasses.dataclass(eq=False)
class Program:
    """A lowered graph on an open device.

    input_positions: which of the call's arguments the program reads, in its order. parameter_positions: which are
    parameters. edited: the file that `source` was read from, if a user gave one, whose faults are the user's to see.
    parts: the same program for traces, where one can hold it.
    weights: what the program reads of them. held_positions: which are the host's side of a DeviceTensor.
    state_positions: which stay on the device, by `states`. kept: which of the `results` do, with a fake tensor of each.
    """

    source: str
    device: Device
    input_positions: list[int]
    parameter_positions: list[int]
    held_positions: list[int]
    states: list[StateUse]
    state_positions: list[int]
    kept: list[tuple[int, Spec, torch.Tensor]]
    weights: list[WeightUse]
    recovery: Recovery
    report: GraphReport
    store: WeightStore
    results: int
    edited: Path | None = None
    parts: TraceSource | None = None
    on_first_weights: Callable[[list[Any]], None] | None = None

    def __post_init__(self) -> None:
        self._border = self.recovery.border
        self._forward = load(self.source, self._border.namespace, self.edited)
        self._uploaded: Uploaded | None = None  # replaced as a whole: other threads may be calling
        # Dynamo runs all modules of one class and structure through one program: what the others of them uploaded.
        self._others: list[Uploaded] = []
        self._lock = threading.Lock()
        self._residents = self.device.resource(Residents)
        self._traces = self.device.resource(Traces)
        self._traced: TracedProgram | None = None
        if self.parts is not None:
            given = self.parts, len(self.input_positions), self.device, self._border, self.report
            self._traced = TracedProgram(*given, load_functions)
        self._fetched = [position for position in self.held_positions if position not in self.state_positions]
        self._inputs_of, self._parameters_of = picks(self.input_positions), picks(self.parameter_positions)
        self.device.depend(self)

    def __call__(self, args: list[Any]) -> Sequence[Any]:
        """Run on a list of arguments, as AOTAutograd's boxed calls do."""
        held = [args[i] for i in self.held_positions]
        try:
            with self._traces.turn():
                return self._call(args)
        finally:  # a view's writes, if it made any, are its owner's
            for owner in (owner_of(host) for host in held if owner_of(host) is not host):
                torch.autograd.graph.increment_version(owner)

    def _call(self, args: list[Any], again: bool = False) -> Sequence[Any]:
        handle = self.device.handle  # raises DeviceError where it was closed
        parameters = self._parameters_of(args)
        try:
            uploaded = self._current(parameters) or self._refresh(args, parameters)
            for position in self._fetched:
                fetch(args[position])
            inputs = self._inputs_of(args)
            states = zip(self.state_positions, self.states, strict=True)
            copies = [self._residents.take(args[i], s.spec, s.held, self._border, s.written) for i, s in states]
            given = [*inputs, *(copy.tensor for copy in copies), *uploaded.tensors]
            if self._traced is None:
                results: Sequence[Any] = self._forward(handle, *given)
            else:
                results = self._traced(self._forward, handle, given, [*copies, *uploaded.weights])
            return self._settle(list(results), copies) if copies or self.kept else results
        except Exception as error:
            is_full = lacks_l1_small(error) and not again and not self.states  # which it may have written by half
            if self.edited is not None and not is_full:
                raise
            reason = ttnn_reason(error)
        if self._traced is not None:
            self._traced.forget()
        self.device.check_open()
        if is_full:
            self._traces.clear_program_cache(handle)
            return self._call(args, again=True)
        return self._recover(args, reason)

    def _settle(self, results: list[Any], copies: list[Copy]) -> list[Any]:
        """Note what the call left on the device; its results as the caller gets them."""
        moved = iter(results[self.results :])
        for state, copy in zip(self.states, copies, strict=True):
            if state.written:
                copy.wrote(copy.tensor if state.result is None else next(moved), on_host_as_well=not state.held)
        for position, spec, like in self.kept:
            results[position] = give(results[position], spec, like, self._border)
        return results[: self.results]

    def release(self) -> None:
        """Let go of everything on the device, which is being closed: calls raise DeviceError from now on."""
        del self._border, self._forward, self._traced, self.recovery
        self._uploaded = self.on_first_weights = None
        self._others.clear()

    def _current(self, parameters: Sequence[torch.Tensor]) -> Uploaded | None:
        """What is uploaded, where that is of these parameters as they are now."""
        uploaded = self._uploaded
        return uploaded if uploaded is not None and uploaded.stamps.current(parameters) else None

    def _refresh(self, args: list[Any], parameters: Sequence[torch.Tensor]) -> Uploaded:
        """Upload what is new or changed."""
        with self._lock:
            known = [*self._others, *filter(None, [self._uploaded])]
            pointers = [parameter.data_ptr() for parameter in parameters]
            self._others = [kept for kept in known if kept.survives(pointers)]
            uploaded = next((kept for kept in known if kept.stamps.current(parameters)), None)
            if uploaded is None:
                self._uploaded = None  # frees what nothing else holds
                present = set(pointers)
                # Held meanwhile: the store uploads those that changed in their place, and no others.
                held = [w for old in known for w in old.weights if present.issuperset(w.stamps.pointers)]
                del known
                uploaded = self._upload_all(args, parameters)
                del held
            self._uploaded = uploaded
            return uploaded

    def _upload_all(self, args: list[Any], parameters: Sequence[torch.Tensor]) -> Uploaded:
        stamps = self.store.stamp(parameters)  # first: what changes from now on is seen
        gone = functools.partial(_drop_gone, weakref.ref(self))
        uploaded = Uploaded(stamps, [weakref.ref(parameter, gone) for parameter in parameters], [], [])
        uses = [(use, [args[i] for i in use.positions]) for use in self.weights]
        with torch.no_grad():
            for use, sources in uses:
                weight = self.store.get(sources, use, self._border)
                uploaded.weights.append(weight)
                uploaded.tensors.append(weight.tensor)
            if self.on_first_weights is not None:
                callback, self.on_first_weights = self.on_first_weights, None
                callback([use.values(sources) for use, sources in uses])
        return uploaded

    def drop_gone(self) -> None:
        """Free what was uploaded of modules that are gone, while Dynamo keeps the program for others of their class.

        From any thread, at any time, so without the lock: what another thread is about to put back goes later.
        """
        self._others = [kept for kept in self._others if not kept.is_gone]
        if self._uploaded is not None and self._uploaded.is_gone:
            self._uploaded = None

    def _recover(self, args: list[Any], reason: str) -> Sequence[Any]:
        for position in self.held_positions:
            fetch(args[position])
        self._uploaded = None  # where the device failed, what was put on it is not trusted
        if self.recovery.strict:
            raise FallbackError(f'{self.report.name}: {reason} (fallback="error")')
        outputs, failed = self.recovery.run(args)
        with self._lock:
            self.report.count_fallbacks([Fallback.of(node, "runtime", why) for node, why in failed])
        names = [node.name for node, _ in failed]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        where = f"{', '.join(names[:5])}{more} ran in eager torch" if names else "the second attempt went through"
        log.warning("%s: a call failed on %s (%s); %s", self.report.name, self.device.description, reason, where)
        return outputs


def picks(positions: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """What picks these of some arguments, in order; of hundreds it takes a fraction of a comprehension's time."""
    if len(positions) < 2:  # of one, `itemgetter` gives no tuple
        return lambda args: [args[i] for i in positions]
    return operator.itemgetter(*positions)


def _drop_gone(program: weakref.ref[Program], _: weakref.ref[torch.Tensor]) -> None:
    """A parameter is gone."""
    found = program()
    if found is not None:
        found.drop_gone()
