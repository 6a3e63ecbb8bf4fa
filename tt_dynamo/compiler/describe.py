"""What a compilation says of itself: the report of a graph, and the dump of its program."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch.fx import Graph

from tt_dynamo.compiler.measure import Measurement
from tt_dynamo.compiler.trace import Trace
from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Sides, compute_nodes, constant_nodes
from tt_dynamo.ir.spec import spec_bytes
from tt_dynamo.report.dump import Dump, InputSpec, WeightSpec
from tt_dynamo.report.report import Choice, GraphReport, Operation, Transfer, emit
from tt_dynamo.runtime.program import Program

log = logging.getLogger(__name__)


def fill_report(report: GraphReport, graph: Graph, sides: Sides, traced: Trace, measured: Measurement) -> None:
    """Note where the nodes of the placed `graph` run, and what its program calls, launches and holds."""
    constants = constant_nodes(graph)
    computing = [n for n in compute_nodes(graph) if n not in constants and n.target not in operators.TRANSFERS]
    report.nodes = len(computing)
    report.device_nodes = sum(sides.get(node) == "device" for node in computing)
    report.host_nodes = report.nodes - report.device_nodes
    calls = [n for n in traced.graph.nodes if n.meta.get("path", "").startswith("ttnn.")]
    report.calls = len(calls)
    for node in calls:
        if "bytes" in node.meta:
            direction = "to_device" if node.meta["path"] == "ttnn.from_torch" else "to_host"
            report.transfers.append(Transfer(node.meta["label"], direction, node.meta["bytes"]))
    launches = measured.launches or [0] * len(calls)  # none were measured
    report.operations = [
        Operation(n.name, n.meta["path"], n.meta.get("module", ""), count)
        for n, count in zip(calls, launches, strict=True)
    ]
    report.choices = [
        Choice(**n.meta["choice"], node=n.meta["source"], module=n.meta["module"])
        for n in traced.graph.nodes
        if "choice" in n.meta
    ]
    report.device_programs = measured.device_programs
    for spec in (use.spec for use in traced.weights if use.spec is not None):
        report.weight_dtypes[spec.dtype] = report.weight_dtypes.get(spec.dtype, 0) + spec_bytes(spec)
    states = sum(spec_bytes(state.spec) for state in traced.states)
    report.cache_bytes = states + sum(spec_bytes(spec) for _, spec in traced.kept)
    report.peak_dram_bytes = measured.peak_dram_bytes + report.weight_bytes + states
    report.peak_l1_bytes = measured.peak_l1_bytes


def publish(report: GraphReport, dump: Dump, program: Program, traced: Trace) -> None:
    """Dump what a compilation ended in, hand out its report, and log it in a line."""
    if dump.path is not None:
        dump.drawing(traced.graph)
        dump.report(report)
        program.on_first_weights = _dump_program(dump, program.source, traced)
    emit(report)
    placed = f"{report.nodes} nodes, {report.device_share:.1%} on the device, {len(report.fallbacks)} fallbacks"
    run = f"{report.device_programs} kernel launches, compiled in {sum(report.seconds.values()):.2f} s"
    log.info("%s on %s: %s, %s", report.name, report.device, placed, run)


def _dump_program(dump: Dump, source: str, traced: Trace) -> Callable[[list[torch.Tensor]], None]:
    """What dumps the program once its weights are there."""
    names = [node.name for node in traced.graph.find_nodes(op="placeholder")]
    count, states = len(traced.inputs), len(traced.states)
    values = [node.meta["val"] for node in traced.inputs]
    inputs = [InputSpec(name, tuple(x.shape), x.dtype) for name, x in zip(names[:count], values, strict=True)]
    specs = [state.spec for state in traced.states] + [use.spec for use in traced.weights]
    weights = [WeightSpec(name, spec.calls if spec else ()) for name, spec in zip(names[count:], specs, strict=True)]
    empty = [torch.zeros(spec.shape) for spec in specs[:states] if spec is not None]  # caches, as they begin

    def write(tensors: list[torch.Tensor]) -> None:
        values = {weight.name: tensor for weight, tensor in zip(weights, [*empty, *tensors], strict=True)}
        dump.program(source, inputs, weights, values)

    return write
