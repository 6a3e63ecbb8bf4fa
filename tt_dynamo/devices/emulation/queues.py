"""Command queues of the mock device, which runs nothing: a ledger of what each command reads and writes.

A command that may run before one that it depends on raises EmulationError: a read or a replay before the write of what
it reads, an overwrite before the last read of what was there. Values are computed as the host gives the commands.

Clocks: each queue counts its commands, and knows how many of each queue are done before its next one starts.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tt_dynamo.devices.errors import EmulationError
from tt_dynamo.devices.queues import PROGRAMS, WRITES, Reading

from .tensor import Buffer, EmulatedTensor

Clock = tuple[int, int]


def _later(one: Clock, other: Clock) -> Clock:
    return max(one[0], other[0]), max(one[1], other[1])


class Clocks:
    """A resource of the device: what each queue, and the host, know to be done."""

    def __init__(self) -> None:
        self.queues: list[Clock] = [(0, 0), (0, 0)]
        self.host: Clock = (0, 0)


@dataclasses.dataclass
class Uses:
    """The last write to a buffer, as its queue and number there, and the last read since on each queue."""

    written: tuple[int, int] = (PROGRAMS, 0)
    read: list[int] = dataclasses.field(default_factory=lambda: [0, 0])


class EmulatedQueues:
    """As `HardwareQueues`, for the buffers of one program. computes: whether its tensors have values."""

    def __init__(self, ttnn: Any, namespace: Any, clocks: Clocks, computes: bool) -> None:
        self._ttnn, self._namespace, self._clocks, self._computes = ttnn, namespace, clocks, computes
        self._uses: dict[int, Uses] = {}

    def made(self, tensor: Any) -> None:
        self._command(PROGRAMS, writes=[tensor.buffer_unique_id()])

    def record(self, queue: int) -> Clock:
        return self._clocks.queues[queue]

    def wait(self, queue: int, event: Clock) -> None:
        self._clocks.queues[queue] = _later(self._clocks.queues[queue], event)

    def write(self, host: Any, tensor: Any) -> None:
        self._command(WRITES, writes=[tensor.buffer_unique_id()])
        self._namespace.copy_host_to_device_tensor(host, tensor)  # the mock may have one queue

    def execute(self, trace: Any) -> None:
        self._command(PROGRAMS, trace.reads, [output.buffer_unique_id() for output in trace.outputs])
        trace.replay()

    def read(self, tensor: Any) -> Reading:
        self._command(PROGRAMS, reads=[tensor.buffer_unique_id()])
        event = self.record(PROGRAMS)
        # The mock answers no reads.
        host = self._ttnn.allocate_tensor_on_host(tensor.spec, tensor.device())
        if self._computes:
            host = EmulatedTensor(host, tensor.value.clone(), Buffer(on_device=False), tensor.padding)

        def wait() -> Any:
            self._clocks.host = _later(self._clocks.host, event)
            return host

        return Reading(wait)

    def finish(self) -> None:
        for clock in self._clocks.queues:
            self._clocks.host = _later(self._clocks.host, clock)

    def _command(self, queue: int, reads: Sequence[int] = (), writes: Sequence[int] = ()) -> None:
        """Note a command, by the ids of the buffers that it reads and writes.

        Raises EmulationError where what it depends on may not be done.
        """
        known = _later(self._clocks.queues[queue], self._clocks.host)
        number = known[queue] + 1
        for buffer in reads:
            uses = self._uses.setdefault(buffer, Uses())
            _check(queue, known, *uses.written, "reads", "written")
            uses.read[queue] = number
        for buffer in writes:
            uses = self._uses.setdefault(buffer, Uses())
            _check(queue, known, *uses.written, "writes over", "written")
            for reader, last in enumerate(uses.read):
                _check(queue, known, reader, last, "writes over", "read")
            uses.written, uses.read = (queue, number), [0, 0]
        self._clocks.queues[queue] = (number, known[1]) if queue == PROGRAMS else (known[0], number)


def _check(queue: int, known: Clock, other: int, number: int, does: str, done: str) -> None:
    if known[other] < number:
        raise EmulationError(
            f"queue {queue} {does} a tensor that queue {other} may not have {done} yet: no event orders the two"
        )
