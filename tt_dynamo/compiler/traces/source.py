"""The text of a program for traces, or why none can hold it."""

import logging

from torch.fx import Graph

from tt_dynamo.compiler.codegen import functions_source
from tt_dynamo.compiler.traces.parts import Untraceable, split
from tt_dynamo.options import Options
from tt_dynamo.passes.place.deallocations import insert_deallocations
from tt_dynamo.report.report import GraphReport
from tt_dynamo.runtime.traces.program import NOT_YET, TraceSource

log = logging.getLogger(__name__)


def trace_source(graph: Graph, options: Options, report: GraphReport) -> TraceSource | None:
    """The parts of a program, whose deallocations are not inserted yet, if `options` ask for traces; notes why not."""
    if not options.trace:
        return None
    try:
        if options.program is not None:
            raise Untraceable("the program may have been edited")
        parts = split(graph)
    except Untraceable as error:
        report.trace = f"none: {error}"
        if options.trace is True:
            log.warning("%s: no trace: %s", report.name, error)
        return None
    if "insert_deallocations" not in options.disable_passes:
        insert_deallocations(parts.functions["run"])
    report.trace = NOT_YET
    return TraceSource(functions_source(parts.functions), parts.reads, parts.uploads)
