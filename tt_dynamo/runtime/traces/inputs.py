"""How the inputs of a traced program get to where its traces read them: by its queue, or by one of their own.

On the host a call writes them to tensors of TTNN that are there since the first one, if torch can.

By one queue   write the inputs, replay
By two         queue 1 writes the inputs of a call while queue 0 replays the one before: there are two sets of tensors,
               each with a trace that reads it, and calls take them in turn. A set is written once the last replay that
               read it is done, and replayed once it is written.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from tt_dynamo.devices import Device
from tt_dynamo.devices.queues import PROGRAMS, WRITES


class OnHost:
    """The tensors of TTNN that go up at each call.

    upload: makes them of the tensors of torch, here with no device. goes_up: which of those each is made of.
    """

    def __init__(self, upload: Callable[..., Sequence[Any]], goes_up: Sequence[int]) -> None:
        self._upload, self._goes_up = upload, goes_up
        self._written: list[Any] = []

    def reserve(self, device: Device, dry_run: bool, sources: Sequence[torch.Tensor]) -> None:
        """Have later calls write to tensors that are made now, unless TTNN fills any of them in another way."""
        counted = [torch.arange(s.numel()).remainder(251).to(s.dtype).view(s.shape) for s in sources]
        try:
            ours, theirs = (
                [device.host_tensor(tensor, dry_run) for tensor in self._upload(None, *filling)]
                for filling in ([torch.zeros_like(source) for source in sources], counted)
            )
        except (TypeError, ValueError):
            return
        for at, written, made in zip(self._goes_up, ours, theirs, strict=True):
            written.write(counted[at])
            if not written.takes(sources[at]) or not written.holds(made):
                return
        self._written = ours

    def make(self, sources: Sequence[torch.Tensor]) -> Sequence[Any]:
        if not self._written:
            return self._upload(None, *sources)
        return [tensor.write(sources[at]) for at, tensor in zip(self._goes_up, self._written, strict=True)]


class Replays:
    """A trace for each set of inputs; made together or not at all."""

    def __init__(self, traces: Iterable[Callable[[], Any]]) -> None:
        self.traces: list[Any] = []
        try:
            for trace in traces:
                self.traces.append(trace())
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        for trace in self.traces:
            trace.release()


@dataclasses.dataclass(frozen=True)
class Lent:
    """A result that is another's as well: another copy's, or a trace's, which the next replay writes to."""

    tensor: Any


class OneQueue:
    """sets: one, of the tensors that inputs are written to by `copy`. late: which results are `Lent`."""

    def __init__(self, copy: Callable[[Any, Any], None], sets: Sequence[Sequence[Any]], late: Sequence[int]) -> None:
        self._copy, self.sets, self._late = copy, sets, late

    def run(self, made: Sequence[Any], replays: Replays) -> Sequence[Any]:
        """The results of a replay on the tensors `made` of the host."""
        (buffers,), (trace,) = self.sets, replays.traces
        for host, tensor in zip(made, buffers, strict=True):
            self._copy(host, tensor)
        trace.replay()
        results = list(trace.outputs)
        for position in self._late:
            results[position] = Lent(results[position])
        return results

    def finish(self) -> None:
        """Wait for what is on its way to the tensors."""


class TwoQueues:
    """sets: two. late: which results are read without waiting for them, as a `Reading`."""

    def __init__(self, queues: Any, sets: Sequence[Sequence[Any]], late: Sequence[int]) -> None:
        self._queues, self.sets, self._late = queues, sets, late
        for tensor in (tensor for buffers in sets for tensor in buffers):
            queues.made(tensor)
        self._free = [queues.record(PROGRAMS) for _ in sets]  # where each set may be written again
        self._written: list[Sequence[Any]] = [() for _ in sets]  # stays on the host until the device has it
        self._turn = 0

    def run(self, made: Sequence[Any], replays: Replays) -> Sequence[Any]:
        """As `OneQueue.run`."""
        at, queues = self._turn, self._queues
        self._turn = (at + 1) % len(self.sets)
        queues.wait(WRITES, self._free[at])
        for host, tensor in zip(made, self.sets[at], strict=True):
            queues.write(host, tensor)
        queues.wait(PROGRAMS, queues.record(WRITES))
        queues.execute(replays.traces[at])
        self._free[at], self._written[at] = queues.record(PROGRAMS), made
        results = list(replays.traces[at].outputs)
        for position in self._late:
            results[position] = queues.read(results[position])
        return results

    def finish(self) -> None:
        """Wait for what is on its way to the tensors, which are about to be freed."""
        with contextlib.suppress(Exception):  # a device that failed has nothing on its way
            self._queues.finish()
