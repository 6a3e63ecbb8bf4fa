"""The text of a program for traces, or why none can hold it."""

import logging

from torch.fx import Graph

from tt_dynamo.compiler.codegen import functions_source
from tt_dynamo.compiler.traces.parts import Untraceable, split
from tt_dynamo.devices import Device
from tt_dynamo.options import Options
from tt_dynamo.passes.place.deallocations import insert_deallocations
from tt_dynamo.report.report import GraphReport
from tt_dynamo.runtime.traces.program import NOT_YET, TraceSource

log = logging.getLogger(__name__)


def trace_source(
    graph: Graph, options: Options, report: GraphReport, device: Device, makes_caches: bool
) -> TraceSource | None:
    """The parts of a program, whose deallocations are not inserted yet, if `options` ask for traces; notes why not.

    makes_caches: whether results stay on the device for calls to come, which write to them there.
    """
    queues = options.queues if device.has_two_queues else 1
    if queues < options.queues:
        report.notes.append(f"queues=2: {device.description} was opened with one command queue, which all is given to")
    if not options.trace:
        if queues == 2:
            report.notes.append("queues=2 takes effect with trace=True: one command queue is used without a trace")
        return None
    try:
        if options.program is not None:
            raise Untraceable("the program may have been edited")
        parts = split(graph, makes_caches)
    except Untraceable as error:
        report.trace = f"none: {error}"
        if queues == 2:
            report.notes.append("queues=2: one command queue is used, as there is no trace")
        if options.trace is True:
            log.warning("%s: no trace: %s", report.name, error)
        return None
    if "insert_deallocations" not in options.disable_passes:
        insert_deallocations(parts.functions["run"])
    report.trace = NOT_YET
    return TraceSource(functions_source(parts.functions), parts.reads, parts.goes_up, parts.late, queues)
