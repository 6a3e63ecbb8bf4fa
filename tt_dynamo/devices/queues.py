"""Two command queues of a device: one writes what the next run reads, while the other one runs.

Commands of one queue run in their order. Of two queues they run in any, but that what follows `wait` on one queue runs
after what came before the `record` of its event on the other.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

PROGRAMS, WRITES = 0, 1


@dataclasses.dataclass(frozen=True)
class Reading:
    """A tensor on its way down: `wait()` gives it, as a tensor of TTNN on the host, once it has arrived."""

    wait: Callable[[], Any]


class HardwareQueues:
    """Programs run, and results are read, on queue 0; what the host writes goes by queue 1."""

    def __init__(self, ttnn: Any, handle: Any) -> None:
        self._ttnn, self._handle = ttnn, handle

    def made(self, tensor: Any) -> None:
        """Note that a tensor was just made, which TTNN does on queue 0."""

    def record(self, queue: int) -> Any:
        """An event, which has happened once what was given to a queue so far is done."""
        return self._ttnn.record_event(self._handle, queue)

    def wait(self, queue: int, event: Any) -> None:
        """Have what is given to a queue from now on run after an event."""
        self._ttnn.wait_for_event(queue, event)

    def write(self, host: Any, tensor: Any) -> None:
        """Write a tensor of the host over one of the device, by queue 1."""
        self._ttnn.copy_host_to_device_tensor(host, tensor, cq_id=WRITES)

    def execute(self, trace: Any) -> None:
        """Replay a trace on queue 0."""
        trace.replay()

    def read(self, tensor: Any) -> Reading:
        """What a tensor holds after what was given to queue 0 so far; nobody waits for it here."""
        host = tensor.cpu(blocking=False, cq_id=PROGRAMS)
        event = self.record(PROGRAMS)

        def wait() -> Any:
            self._ttnn.event_synchronize(event)
            return host

        return Reading(wait)

    def finish(self) -> None:
        """Wait until both queues are empty."""
        self._ttnn.synchronize_device(self._handle)
