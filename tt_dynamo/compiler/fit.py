"""What a program takes of the device, as TTNN's own graph capture counts it, and a clear error where that is too much.

The judge is TTNN's allocator: every weight is allocated while a graph is lowered, without contents, and the program is
measured beside them. What is counted of a graph only explains its answer.
"""

import contextlib
import dataclasses
import itertools
import logging
import math
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.utils._pytree import tree_map, tree_map_only

from tt_dynamo.compiler.codegen import Expression
from tt_dynamo.compiler.decisions import is_weight_of
from tt_dynamo.compiler.traced_weights import is_weight
from tt_dynamo.devices.boards import BOARD_DESCRIPTIONS
from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.helpers import as_bfloat16, checked
from tt_dynamo.ir.spec import BITS, Spec, spec_bytes
from tt_dynamo.ir.torch_internals import Run
from tt_dynamo.ir.ttnn_internals import graph_capture, lacks_dram, ttnn_reason
from tt_dynamo.report.report import GraphReport, size_text

log = logging.getLogger(__name__)

TILE = 32


class DoesNotFit(MemoryError):
    """A graph needs more DRAM than there is. `needed` and `free` are bytes; what runs meanwhile comes on top."""

    def __init__(self, message: str, needed: int, free: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.free = free


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one kind of memory on an open device, all banks together."""

    total: int
    free: int


def dram(ttnn: Any, handle: Any) -> Memory:
    """The DRAM of a device, as TTNN's allocator has it."""
    return _memory(ttnn, handle, ttnn.BufferType.DRAM)


def l1(ttnn: Any, handle: Any) -> Memory:
    """The L1 of all worker cores of a device."""
    return _memory(ttnn, handle, ttnn.BufferType.L1)


def _memory(ttnn: Any, handle: Any, kind: Any) -> Memory:
    view = ttnn.get_memory_view(handle, kind)
    return Memory(view.total_bytes_per_bank * view.num_banks, view.total_bytes_free_per_bank * view.num_banks)


@contextlib.contextmanager
def dram_or_error() -> Iterator[None]:
    """Raise MemoryError, with TTNN's words, where TTNN raises because the DRAM is full."""
    try:
        yield
    except RuntimeError as error:
        if not lacks_dram(error):
            raise
        raise MemoryError(ttnn_reason(error)) from None


def _needed(graph: Graph, widest: str = "float32") -> Counter[str]:
    """Bytes that a placed graph holds on the device, by kind; weights of products are at most as wide as `widest`."""
    sizes: Counter[str] = Counter()
    for crossing in graph.find_nodes(op="call_function", target=operators.to_device):
        spec = meta.spec(crossing)
        if any(is_weight_of(user, crossing) for user in crossing.users):
            spec = dataclasses.replace(spec, dtype=min(spec.dtype, widest, key=lambda dtype: BITS.get(dtype, 16)))
        sizes[spec.dtype] += _padded_bytes(spec) if is_weight(crossing) else 0
    for read in graph.find_nodes(op="call_function", target=operators.state_read):
        sizes["of caches"] += _padded_bytes(meta.spec(read))
    return +sizes


def _padded_bytes(spec: Spec) -> int:
    if spec.memory == "HOST":
        return 0
    *outer, rows, columns = 1, 1, *spec.shape
    unit = TILE if spec.layout == "TILE" else 1
    padded = (math.ceil(rows / unit) * unit, math.ceil(columns / unit) * unit)
    return spec_bytes(dataclasses.replace(spec, shape=(*outer, *padded)))


@contextlib.contextmanager
def explained(graph: Graph, device: Any, ttnn: Any) -> Iterator[None]:
    """Turn a MemoryError, with TTNN's words, into a DoesNotFit that says what would fit. graph: placed."""
    before = dram(ttnn, device.handle)
    try:
        yield
        return
    except MemoryError as error:
        reason = str(error)
        cause: BaseException | None = error
        while cause is not None:  # their frames would hold what they allocated for as long as the error is held
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__context__
    raise _explained(graph, before, device.board, reason)


def _explained(graph: Graph, has: Memory, board_name: str, words: str) -> DoesNotFit:
    needed = _needed(graph)
    total = needed.total()
    sizes = ", ".join(f"{size_text(size)} {kind}" for kind, size in needed.items())
    narrowed = {dtype: _needed(graph, dtype).total() for dtype in ("bfloat8_b", "bfloat4_b")}
    fitting = [dtype for dtype, size in narrowed.items() if size < min(total, has.free)]
    ways = [f'weight_dtype="{dtype}" ({size_text(narrowed[dtype])})' for dtype in fitting[:1]]
    ways.append("a smaller batch or a shorter cache")
    if total > has.total:
        larger = [board for board in BOARD_DESCRIPTIONS.values() if board.dram_bytes > total]
        ways += [f'device="{board.name}" ({size_text(board.dram_bytes)})' for board in larger]
    if has.total - has.free > has.total // 16:
        ways.append("dropping what is on the device already")
    message = (
        f"does not fit: {size_text(total)} of weights and caches ({sizes or 'none'}), and beside them what runs; "
        f"{board_name} has {size_text(has.total)} of DRAM, {size_text(has.free)} free. "
        f"What would help: {', '.join(ways)}. TTNN: {words}"
    )
    return DoesNotFit(message, total, has.free)


MARK = "program: "  # before the names of its calls, in a graph capture


class MarkedRun(Run):
    """Runs a program's graph, its TTNN calls marked in a graph capture; what the host computes is zeros instead."""

    def __init__(self, graph: Graph, ttnn: Any) -> None:
        super().__init__(torch.nn.Module(), graph=graph)
        self.extra_traceback = False
        self._capture = graph_capture(ttnn)

    def events(self, arguments: list[Any], mode: Any) -> list[dict]:
        """What the graph capture notes of one run."""
        self._capture.begin_graph_capture(mode)
        try:
            self.run(*arguments)
        finally:
            events: list[dict] = self._capture.end_graph_capture()
        return events

    def run_node(self, n: Node) -> Any:
        path = meta.path.get(n, "")
        if path.startswith("ttnn."):
            self._capture.track_function_start(MARK + path)
            try:
                return super().run_node(n)
            finally:
                self._capture.track_function_end()
        if n.op == "call_function" and not path and n.target not in (checked, as_bfloat16):
            return tree_map(zeros, n.meta.get("val"))
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return super().call_function(target, *tree_map_only(Expression, lambda x: x.value, (args, kwargs)))


def zeros(value: Any) -> Any:
    """Zeros like a fake tensor; 0 for what is none."""
    return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else 0


def measure_program(report: GraphReport, graph: Graph, arguments: list[Any], ttnn: Any) -> list[int]:
    """Note what one run of a program's graph does; gives the kernel launches of each call.

    Run once dispatched, for launches and buffers, and once undispatched, for circular buffers. Raises MemoryError where
    the DRAM is full.
    """
    try:
        with torch.no_grad(), dram_or_error():
            events = MarkedRun(graph, ttnn).events(arguments, ttnn.graph.RunMode.NORMAL)
            undispatched = MarkedRun(graph, ttnn).events(arguments, ttnn.graph.RunMode.NO_DISPATCH)
    except MemoryError:
        raise
    except Exception as error:
        log.warning("%s: could not be measured: %s", report.name, error)
        return []
    report.device_programs = sum(event["node_type"] == "program_execution" for event in events)
    report.peak_dram_bytes = _peak(events, "DRAM")
    report.peak_l1_bytes = max(_peak(events, "L1"), int(ttnn.graph.extract_peak_L1_memory_usage(undispatched)))
    return _launches(events)


def _peak(events: list[dict], kind: str) -> int:
    """Most bytes of buffers of that kind at once."""
    signs = {"buffer_allocate": 1, "buffer_deallocate": -1}
    changes = [event for event in events if event["node_type"] in signs and event["params"]["type"] == kind]
    held = itertools.accumulate(signs[change["node_type"]] * int(change["params"]["size"]) for change in changes)
    return max(held, default=0)


def _launches(events: list[dict]) -> list[int]:
    """Kernel launches within each call of the program."""
    launches: list[int] = []
    for event in events:
        if event["node_type"] == "function_start" and event["params"]["name"].startswith(MARK):
            launches.append(0)
        elif event["node_type"] == "program_execution" and launches:
            launches[-1] += 1
    return launches
