"""What one run of a program does on the device, as TTNN's own graph capture counts it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Graph

from tt_dynamo.compiler.codegen import program_source
from tt_dynamo.ir.graph import copy_graph
from tt_dynamo.ir.ttnn_internals import graph_capture, lacks_dram, ttnn_reason
from tt_dynamo.runtime.program import load

if TYPE_CHECKING:
    from tt_dynamo.compiler.trace import Trace

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Measurement:
    """What TTNN counted in one run.

    device_programs: kernel launches. launches: those of each TTNN call, in order. peak_*_bytes: most bytes held at once
    by what the run allocates, in L1 with the circular buffers of the largest kernel.
    """

    device_programs: int = 0
    launches: list[int] = dataclasses.field(default_factory=list)
    peak_dram_bytes: int = 0
    peak_l1_bytes: int = 0


class MarkedNamespace:
    """TTNN's module with the start and end of each call written into a running graph capture."""

    def __init__(self, ttnn: Any, module: Any = None, path: str = "ttnn") -> None:
        self._ttnn, self._module, self._path = ttnn, module or ttnn, path

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        path = f"{self._path}.{name}"
        if isinstance(found, types.ModuleType):
            return MarkedNamespace(self._ttnn, found, path)
        if isinstance(found, type) or not callable(found):
            return found
        capture = graph_capture(self._ttnn)

        def marked(*args: Any, **kwargs: Any) -> Any:
            capture.track_function_start(path)
            try:
                return found(*args, **kwargs)
            finally:
                capture.track_function_end()

        return marked


@contextlib.contextmanager
def dram_or_error() -> Iterator[None]:
    """Raise MemoryError, with TTNN's words, where TTNN raises because the DRAM is full."""
    try:
        yield
    except RuntimeError as error:
        if not lacks_dram(error):
            raise
        raise MemoryError(ttnn_reason(error)) from None


def zeros(value: Any) -> Any:
    """Zeros like a fake tensor; 0 for what is none."""
    return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else 0


def give_host_values(graph: Graph) -> list[torch.Tensor]:
    """Make the values that a program computes on the host its last arguments; returns zeros for them.

    On zeros the operations behind them may raise. What the program gives on the host goes.
    """
    output = graph.output_node()
    output.args = ([node for node in output.all_input_nodes if "ttnn" in node.meta],)
    first = next(node for node in graph.nodes if node.op != "placeholder")
    on_host = [node for node in graph.nodes if node.op == "call_function" and "path" not in node.meta]
    given = []
    for node in on_host:
        if isinstance(node.meta.get("val"), torch.Tensor):
            with graph.inserting_before(first):
                node.replace_all_uses_with(graph.placeholder(node.name), propagate_meta=False)
            given.append(zeros(node.meta["val"]))
    for node in reversed(on_host):
        if not node.users:
            graph.erase_node(node)
    return given


def measure_program(name: str, traced: Trace, ttnn: Any, handle: Any) -> Measurement:
    """What one run of a traced program does, on zeros; nothing of it survives, nor what stood in for its weights."""
    graph, _ = copy_graph(traced.graph)
    given = give_host_values(graph)
    forward = load(program_source(graph), MarkedNamespace(ttnn))
    with torch.no_grad():
        inputs = [zeros(node.meta["val"]) for node in traced.inputs] + [state.tensor for state in traced.states]
        weights = [use.tensor if use.spec else zeros(use.node.meta["val"]) for use in traced.weights]
        try:
            return measure(ttnn, lambda: forward(handle, *inputs, *weights, *given))
        except MemoryError:
            raise
        except Exception as error:
            log.warning("%s: could not be measured: %s", name, error)
            return Measurement()
        finally:
            traced.release()


def measure(ttnn: Any, run: Callable[[], object]) -> Measurement:
    """Call `run`, whose TTNN calls go through a MarkedNamespace, twice under capture.

    Once dispatched, for launches and buffers, and once undispatched, for circular buffers. Raises MemoryError where the
    DRAM is full.
    """
    with dram_or_error():
        events = _captured(ttnn, run, ttnn.graph.RunMode.NORMAL)
    result = Measurement(
        device_programs=sum(event["node_type"] == "program_execution" for event in events),
        launches=_launches(events),
        peak_dram_bytes=_peak(events, "DRAM"),
    )
    undispatched = _captured(ttnn, run, ttnn.graph.RunMode.NO_DISPATCH)
    result.peak_l1_bytes = max(_peak(events, "L1"), int(ttnn.graph.extract_peak_L1_memory_usage(undispatched)))
    return result


def _captured(ttnn: Any, run: Callable[[], object], mode: Any) -> list[dict]:
    capture = graph_capture(ttnn)
    capture.begin_graph_capture(mode)
    try:
        run()
    finally:
        events: list[dict] = capture.end_graph_capture()
    return events


def _peak(events: list[dict], kind: str) -> int:
    held = peak = 0
    for event in events:
        if event["node_type"] == "buffer_allocate" and event["params"]["type"] == kind:
            held += int(event["params"]["size"])
            peak = max(peak, held)
        elif event["node_type"] == "buffer_deallocate" and event["params"]["type"] == kind:
            held -= int(event["params"]["size"])
    return peak


def _launches(events: list[dict]) -> list[int]:
    """Kernel launches within each outermost TTNN call."""
    launches: list[int] = []
    depth = 0
    for event in events:
        if event["node_type"] == "function_start":
            if depth == 0 and event["params"]["name"].startswith("ttnn."):
                launches.append(0)
            depth += 1
        elif event["node_type"] == "function_end":
            depth -= 1
        elif event["node_type"] == "program_execution" and launches:
            launches[-1] += 1
    return launches
