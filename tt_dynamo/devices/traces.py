"""A trace of TTNN on hardware: the commands of one run, recorded once and executed again at the same addresses."""

from collections.abc import Callable, Sequence
from typing import Any


class HardwareTrace:
    """A captured run of a function `run(device, *arguments)`, which executes nothing while it is captured.

    outputs: the tensors that each replay writes. Raises what TTNN raises, as where the trace region has no room.
    """

    def __init__(self, ttnn: Any, handle: Any, run: Callable[..., Any], arguments: Sequence[Any]) -> None:
        self._ttnn, self._handle = ttnn, handle
        self._id = ttnn.begin_trace_capture(handle, cq_id=0)
        try:
            try:
                self.outputs: Sequence[Any] = run(handle, *arguments)
            finally:
                ttnn.end_trace_capture(handle, self._id, cq_id=0)
        except BaseException:
            self.release()
            raise

    def replay(self) -> None:
        """Execute it; its outputs are there once they are read."""
        self._ttnn.execute_trace(self._handle, self._id, cq_id=0, blocking=False)

    def release(self) -> None:
        self._ttnn.release_trace(self._handle, self._id)
