"""What a program does in one call, as TTNN's own graph capture counts it: kernel launches, buffers, addresses.

And what its report says of it, call by call.
"""

import contextlib
import dataclasses
import itertools
import logging
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Graph, Node
from torch.utils._pytree import tree_map, tree_map_only

from tt_dynamo.compiler.codegen import Expression
from tt_dynamo.compiler.configs import PRODUCTS
from tt_dynamo.compiler.fit import dram_or_error
from tt_dynamo.devices import Device
from tt_dynamo.estimate.chip import NOTHING
from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import Sides, compute_nodes, constant_nodes, shape_of
from tt_dynamo.ir.helpers import as_bfloat16, checked, exactly_bfloat16, restrided, shared
from tt_dynamo.ir.spec import spec_bytes
from tt_dynamo.ir.torch_internals import Run
from tt_dynamo.ir.ttnn_internals import graph_capture
from tt_dynamo.options import WEIGHT_DTYPES
from tt_dynamo.report.report import Choice, GraphReport, Operation, Transfer
from tt_dynamo.report.tunings import Tuned
from tt_dynamo.runtime.l1_small import with_l1_small

if TYPE_CHECKING:
    from tt_dynamo.compiler.trace import Trace

log = logging.getLogger(__name__)

MARK = "program: "  # before the names of its calls, in a graph capture
SIGNS = {"buffer_allocate": 1, "buffer_deallocate": -1}
_CORES = re.compile(r"\[(\d+)-(\d+) - (\d+)-(\d+)\]")  # a rectangle of them: "{[0-0 - 7-7]}"


class MarkedRun(Run):
    """Runs a program's graph, its TTNN calls marked in a graph capture; what the host computes is zeros instead.

    results: of the last run, alive as long as the caller of a program holds them.
    """

    def __init__(self, graph: Graph, ttnn: Any) -> None:
        super().__init__(torch.nn.Module(), graph=graph)
        self.extra_traceback = False
        self.results: Sequence[Any] = ()
        self._capture = graph_capture(ttnn)

    def events(self, arguments: list[Any], mode: Any) -> list[dict]:
        """What the graph capture notes of one run."""
        self._capture.begin_graph_capture(mode)
        try:
            self.results = self.run(*arguments)
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
        if n.op == "call_function" and not path and n.target not in (checked, as_bfloat16, exactly_bfloat16):
            return tree_map(zeros, n.meta.get("val"))
        return super().run_node(n)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return super().call_function(target, *tree_map_only(Expression, lambda x: x.value, (args, kwargs)))


def zeros(value: Any) -> Any:
    """Zeros like a fake tensor; 0 for what is none."""
    return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else 0


def measure_program(report: GraphReport, graph: Graph, arguments: list[Any], ttnn: Any, device: Device) -> list[int]:
    """Note what one run of a program's graph does; gives the kernel launches of each call.

    Run once dispatched, for launches and buffers, once undispatched, for circular buffers, and dispatched once more,
    for addresses. Raises MemoryError where the DRAM is full.
    """
    try:
        with torch.no_grad(), dram_or_error():
            first = MarkedRun(graph, ttnn)
            events = with_l1_small(device, lambda: first.events(arguments, ttnn.graph.RunMode.NORMAL))
            undispatched = MarkedRun(graph, ttnn).events(arguments, ttnn.graph.RunMode.NO_DISPATCH)
    except MemoryError:
        raise
    except Exception as error:
        log.warning("%s: could not be measured: %s", report.name, error)
        return []
    report.device_programs = sum(event["node_type"] == "program_execution" for event in events) // device.chips
    report.peak_dram_bytes = _peak(events, "DRAM")
    report.peak_l1_bytes = max(peak_of_a_core(events), peak_of_a_core(undispatched))
    used = _addresses(events) | _move_states(graph, arguments, first.results, ttnn)
    with contextlib.suppress(RuntimeError), torch.no_grad():  # no room beside the results of the first run
        _note_addresses(report, MarkedRun(graph, ttnn).events(arguments, ttnn.graph.RunMode.NORMAL), used)
    return [count // device.chips for count in _launches(events)]  # which are noted for each chip


def _note_addresses(report: GraphReport, events: list[dict], used: set[tuple[str, int]]) -> None:
    """Note where the buffers of a run lie, after one that `used` these places."""
    buffers = _allocated(events)
    ends = (buffer["address"] + buffer["max_size_per_bank"] for buffer in buffers if buffer["type"] == "DRAM")
    report.highest_dram_address = max(ends, default=0)
    report.lowest_l1_address = min((buffer["address"] for buffer in buffers if buffer["type"] == "L1"), default=0)
    report.new_allocations = sum((buffer["type"], buffer["address"]) not in used for buffer in buffers)


def _allocated(events: list[dict]) -> list[dict]:
    return [event["params"] for event in events if event["node_type"] == "buffer_allocate"]


def _addresses(events: list[dict]) -> set[tuple[str, int]]:
    """The kind of memory and the address of every buffer that a run allocated."""
    return {(buffer["type"], buffer["address"]) for buffer in _allocated(events)}


def _move_states(graph: Graph, arguments: list[Any], results: Sequence[Any], ttnn: Any) -> set[tuple[str, int]]:
    """Make `arguments` those of the next call, whose states lie where the last one left them: its last results.

    Gives where those that moved lay before.
    """
    placeholders = enumerate(graph.find_nodes(op="placeholder"))
    moved = [at for at, node in placeholders if node in meta.state and meta.state(node).result is not None]
    left = {("DRAM", arguments[at].buffer_address()) for at in moved}
    for at, tensor in zip(moved, results[len(results) - len(moved) :], strict=True):
        ttnn.deallocate(arguments[at])
        arguments[at] = tensor
    return left


def _peak(events: list[dict], kind: str) -> int:
    """Most bytes of buffers of that kind at once."""
    changes = [event for event in events if event["node_type"] in SIGNS and event["params"]["type"] == kind]
    held = itertools.accumulate(SIGNS[change["node_type"]] * int(change["params"]["size"]) for change in changes)
    return max(held, default=0)


def peak_of_a_core(events: list[dict]) -> int:
    """Most bytes of L1 that one core holds at once: its part of each buffer, and the circular buffers of a kernel.

    Those of products and norms are not among the events that TTNN 0.81 captures.
    """
    buffers, peak = 0, 0
    circular: Counter[tuple[int, int]] = Counter()  # bytes of each core, by its column and row
    for event in events:
        kind, found = event["node_type"], event["params"]
        if kind in SIGNS and found["type"] == "L1":
            buffers += SIGNS[kind] * int(found["max_size_per_bank"])
        elif kind == "circular_buffer_deallocate_all":
            circular.clear()
        elif kind == "circular_buffer_allocate" and found["globally_allocated"] == "0":  # others lie in a buffer
            for left, top, right, bottom in (map(int, corners) for corners in _CORES.findall(found["core_range_set"])):
                cores = itertools.product(range(left, right + 1), range(top, bottom + 1))
                circular.update(dict.fromkeys(cores, int(found["size"])))
        peak = max(peak, buffers + max(circular.values(), default=0))
    return peak


def _launches(events: list[dict]) -> list[int]:
    """Kernel launches within each call of the program."""
    launches: list[int] = []
    for event in events:
        if event["node_type"] == "function_start" and event["params"]["name"].startswith(MARK):
            launches.append(0)
        elif event["node_type"] == "program_execution" and launches:
            launches[-1] += 1
    return launches


def fill_report(report: GraphReport, graph: Graph, sides: Sides, traced: "Trace", launches: list[int]) -> None:
    """Note where the nodes of the placed `graph` run, and what its measured program calls and holds.

    launches: of each call of TTNN; empty where none were measured.
    """
    left_out = operators.TRANSFERS | {restrided, shared}  # which no model asked for
    constants = constant_nodes(graph)
    computing = [n for n in compute_nodes(graph) if n not in constants and n.target not in left_out]
    report.nodes = len(computing)
    report.device_nodes = sum(sides.get(node) == "device" for node in computing)
    report.host_nodes = report.nodes - report.device_nodes
    calls = [n for n in traced.graph.nodes if meta.path.get(n, "").startswith("ttnn.")]
    report.calls = len(calls)
    for node, count in zip(calls, launches or [0] * len(calls), strict=True):
        path = meta.path(node)
        cost = meta.cost.get(node, NOTHING) if count or not launches else NOTHING  # a view takes no time
        estimated = cost.seconds, cost.bound if cost.seconds else "", cost.utilization
        plain = meta.plain_cost(node).seconds if node in meta.plain_cost else None
        source, config = meta.source.get(node, ""), _config_of(node)
        place = node.name, path, meta.module.get(node, ""), count
        report.operations.append(Operation(*place, *estimated, source, config, plain))
        if node in meta.transferred:
            direction = "to_device" if path == "ttnn.from_torch" else "to_host"
            report.transfers.append(Transfer(meta.label(node), direction, meta.transferred(node)))
    chosen = [node for node in traced.graph.nodes if node in meta.choice]
    report.choices = [Choice(**meta.choice(n), node=meta.source(n), module=meta.module(n)) for n in chosen]
    report.tuned = [_tuned(node) for node in chosen if node in meta.tuning]
    for spec in (use.spec for use in traced.weights if use.spec is not None):
        report.weight_dtypes[spec.dtype] = report.weight_dtypes.get(spec.dtype, 0) + spec_bytes(spec)
    _fill_expert_bytes(report, graph, sides)
    states = sum(spec_bytes(state.spec) for state in traced.states)
    report.cache_bytes = states + sum(spec_bytes(spec) for _, spec in traced.kept)
    report.peak_dram_bytes += report.weight_bytes + states
    report.held_results = len(traced.kept)


def _fill_expert_bytes(report: GraphReport, graph: Graph, sides: Sides) -> None:
    """Note how many bytes the experts' weights take, and how many of them one run reads."""
    for target in (operators.expert_linear, operators.mix_experts):
        for node in graph.find_nodes(op="call_function", target=target):
            if sides.get(node) == "device":
                weight, chosen = node.args[1], node.args[3] if target is operators.expert_linear else None
                share = shape_of(chosen)[0] / shape_of(weight)[0] if chosen else 1
                report.expert_bytes += spec_bytes(meta.spec(weight))
                report.expert_bytes_read += round(share * spec_bytes(meta.spec(weight)))


def _tuned(call: Node) -> Tuned:
    found = meta.tuning(call)
    return Tuned(**dataclasses.asdict(found), gain=found.gain, node=meta.source(call), module=meta.module(call))


def _config_of(call: Node) -> dict[str, Any]:
    """What a call of a program was made with, and the dtype of the weight that it reads."""
    config = meta.config.get(call, {})
    weight = call.args[1] if meta.path(call) in PRODUCTS and len(call.args) > 1 else None
    spec = meta.weight(weight).spec if isinstance(weight, Node) and weight in meta.weight else None
    return config if spec is None or spec.dtype not in WEIGHT_DTYPES else {**config, "weight_dtype": spec.dtype}
