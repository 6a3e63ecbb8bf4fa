"""A trace on the mock device, which records no commands: TTNN checks what is to be captured, and a replay runs it.

TTNN checks that no operation writes from the host, that every program is in its cache, and that nothing that was
allocated since lives at a replay. The replay computes on the tensors that were captured and writes to the outputs that
were captured, so that what a trace would corrupt, or would read from another place, shows as wrong values or an error.
"""

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tt_dynamo.devices.errors import EmulationError

from .tensor import Buffer, EmulatedTensor


class EmulatedTrace:
    """As `HardwareTrace`. run computes values, None in a dry run; check makes the same calls without.

    reads: the ids of the buffers of `arguments`.
    """

    def __init__(
        self,
        ttnn: Any,
        handle: Any,
        run: Callable[..., Any] | None,
        check: Callable[..., Any],
        arguments: Sequence[Any],
    ) -> None:
        self._ttnn, self._handle, self._run = ttnn, handle, run
        tensors = [argument.tensor if run is not None else argument for argument in arguments]
        self._arguments = [weakref.ref(argument) for argument in arguments] if run is not None else []
        results = self._without_host_writes(check, tensors)
        self.reads: list[int] = [tensor.buffer_unique_id() for tensor in tensors]
        if any(result.buffer_unique_id() in self.reads for result in results):
            raise EmulationError("a result lies in the memory of an input, which a trace would write to")
        self._id = self._checked(check, tensors)
        self.outputs: Sequence[Any] = results if run is None else [_undefined(result) for result in results]

    def replay(self) -> None:
        self._check_allocations()
        if self._run is None:
            return
        arguments = [reference() for reference in self._arguments]
        if any(argument is None for argument in arguments):
            raise EmulationError("a trace was replayed after a tensor that it reads was freed")
        results = self._run(self._handle, *arguments)
        for output, result in zip(self.outputs, results, strict=True):
            output.write(..., result.value)

    def release(self) -> None:
        self._ttnn.release_trace(self._handle, self._id)

    def _without_host_writes(self, check: Callable[..., Any], tensors: Sequence[Any]) -> Sequence[Any]:
        """The results of a run that TTNN watches; the outputs of a trace are rewritten by it, so others may be too."""
        from ttnn.tools.trace_allocation_tracker import corruptible_allocation_scope

        capture = self._ttnn._ttnn.graph
        capture.begin_graph_capture(self._ttnn.graph.RunMode.NORMAL)
        try:
            with corruptible_allocation_scope(self._handle):
                results: Sequence[Any] = check(self._handle, *tensors)
        finally:
            events = capture.end_graph_capture()
        calls = (event["params"]["name"] for event in events if event["node_type"] == "function_start")
        if any("Tensor::to_device" in call for call in calls):
            raise EmulationError("an operation writes from the host, which no trace holds")
        return results

    def _checked(self, check: Callable[..., Any], tensors: Sequence[Any]) -> Any:
        """The trace of a run that is validated and not dispatched, and misses no program in the cache."""
        ttnn, handle = self._ttnn, self._handle
        ttnn._ttnn.graph.begin_graph_capture(ttnn.graph.RunMode.NO_DISPATCH)
        try:
            handle.set_program_cache_misses_allowed(False)
            trace = ttnn.begin_trace_capture(handle, cq_id=0)
            try:
                check(handle, *tensors)
            except BaseException:
                ttnn.end_trace_capture(handle, trace, cq_id=0)
                ttnn.release_trace(handle, trace)
                raise
            ttnn.end_trace_capture(handle, trace, cq_id=0)
        finally:
            handle.set_program_cache_misses_allowed(True)
            ttnn._ttnn.graph.end_graph_capture()
        return trace

    def _check_allocations(self) -> None:
        """Raise EmulationError where a tensor lives that was allocated after the capture, as `execute_trace` does."""
        from ttnn._ttnn.operations.trace import get_unsafe_tracked_ids

        if get_unsafe_tracked_ids(self._handle, self._id):
            gc.collect()
            found = get_unsafe_tracked_ids(self._handle, self._id)
            if found:
                raise EmulationError(f"tensors of {sorted(set(found.values()))} live that a replay may overwrite")


def _undefined(result: Any) -> EmulatedTensor:
    """An output before its first replay."""
    shape, is_integer = tuple(result.shape), "INT" in result.dtype.name
    value = torch.full(shape, -1) if is_integer else torch.full(shape, float("nan"))
    return EmulatedTensor(result, value, Buffer(on_device=True), None)
