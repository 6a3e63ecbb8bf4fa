"""Time calls on a device: a trace of many, replayed.

A trace holds `CALLS` times the call, so that the time of one replay is that of the kernels and of the gaps between them
alone. Without room for a trace, which a device has where it was opened with a trace region, the calls are made one
after another: these times are the host's where that is slower. TTNN's mock device crashes in a trace, so it never gets
here.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from tt_dynamo.ir.helpers import as_bfloat16
from tt_dynamo.ir.spec import on_device
from tt_dynamo.tuner.tuner import Candidate, Tensors

CALLS, WARM_UPS, REPEATS = 100, 2, 10


class DeviceClock:
    """Times candidates on the open device `handle`, with contents from a generator of its own."""

    measured = True

    def __init__(self, ttnn: Any, handle: Any) -> None:
        self._ttnn, self._handle = ttnn, handle
        self._generator = torch.Generator().manual_seed(0)

    def operands(self, tensors: Tensors) -> Tensors:
        """Normally distributed contents for floats on the device; integers, which pick rows, are as they are."""
        return {node: self._filled(tensor) for node, tensor in tensors.items()}

    def _filled(self, tensor: Any) -> Any:
        if not on_device(tensor) or "INT" in tensor.dtype.name:
            return tensor
        contents = as_bfloat16(torch.randn(tuple(tensor.shape), generator=self._generator))
        how = {"dtype": tensor.dtype, "layout": tensor.layout, "memory_config": tensor.memory_config()}
        return self._ttnn.from_torch(contents, device=self._handle, **how)

    def seconds(self, candidate: Candidate, operands: Tensors) -> float:
        """The median of `REPEATS` rounds of `CALLS` calls, divided by their number."""
        for _ in range(WARM_UPS):
            candidate.run(operands)  # which also compiles its kernels
        with self._round(candidate, operands) as run:
            for _ in range(WARM_UPS):
                run()
            return statistics.median(self._timed(run) for _ in range(REPEATS)) / CALLS

    def pcc(self, candidate: Candidate, first: Candidate, operands: Tensors) -> float | None:
        """The correlation of all results; 1.0 where both are constant and equal."""
        ours, expected = (self._values(each.run(operands)) for each in (candidate, first))
        if torch.equal(ours, expected):
            return 1.0
        return float(torch.corrcoef(torch.stack((ours, expected)))[0, 1].nan_to_num(0.0))

    def _values(self, result: Any) -> torch.Tensor:
        parts = result if isinstance(result, (tuple, list)) else (result,)
        return torch.cat([self._ttnn.to_torch(part).double().flatten() for part in parts])

    def _timed(self, run: Callable[[], None]) -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    @contextlib.contextmanager
    def _round(self, candidate: Candidate, operands: Tensors) -> Iterator[Callable[[], None]]:
        """What makes `CALLS` calls and waits for them."""
        ttnn, handle = self._ttnn, self._handle
        trace = self._trace(candidate, operands)
        if trace is None:

            def run() -> None:
                for _ in range(CALLS):
                    candidate.run(operands)
                ttnn.synchronize_device(handle)

            yield run
            return
        try:
            yield lambda: ttnn.execute_trace(handle, trace, cq_id=0, blocking=True)
        finally:
            ttnn.release_trace(handle, trace)

    def _trace(self, candidate: Candidate, operands: Tensors) -> Any:
        """A trace of `CALLS` calls; None where the device has no room for one, or the call cannot be in one."""
        ttnn, handle = self._ttnn, self._handle
        ttnn.synchronize_device(handle)
        trace, is_whole = None, False
        with contextlib.suppress(RuntimeError):
            trace = ttnn.begin_trace_capture(handle, cq_id=0)
            try:
                for _ in range(CALLS):
                    candidate.run(operands)
            finally:
                ttnn.end_trace_capture(handle, trace, cq_id=0)
            is_whole = True
        if trace is not None and not is_whole:
            with contextlib.suppress(RuntimeError):
                ttnn.release_trace(handle, trace)
        return trace if is_whole else None
