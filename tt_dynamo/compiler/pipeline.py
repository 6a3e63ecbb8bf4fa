"""Run the passes on a graph. One that raises is undone: it costs its own rewrites, never the compilation.

A pass may raise halfway through a rewrite. The graph as it was before all passes is therefore kept, and the passes run
on it anew, without the one that raised. Where the device would compute other values without that pass, none run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from torch.fx import GraphModule

from tt_dynamo.ir.graph import Context, copy_graph
from tt_dynamo.passes import NEEDED_FOR_VALUES, PASSES
from tt_dynamo.report.dump import Dump


def run_passes(
    module: GraphModule, pristine: GraphModule, disabled: Collection[str], assume: bool, dump: Dump
) -> tuple[Context, dict[str, str]]:
    """Run all passes but those `disabled`; returns their context, and for each that raised what it raised.

    pristine: a copy of the module. With one of NEEDED_FOR_VALUES among those that raised, the graph is as it was.
    """
    raised: dict[str, str] = {}
    while not NEEDED_FOR_VALUES.intersection(raised):
        context = Context(assume=assume)
        failure = _run(module, context, {*disabled, *raised}, dump)
        if failure is None:
            return context, raised
        raised.update([failure])
        module.graph, _ = copy_graph(pristine.graph)
    return Context(assume=assume), raised


def _run(module: GraphModule, context: Context, disabled: Collection[str], dump: Dump) -> tuple[str, str] | None:
    """The name of the first pass that raises, and what it raised; the graph is then as it left it."""
    for transform in PASSES:
        name, log = transform.__name__, logging.getLogger(transform.__module__)
        if name in disabled:
            continue
        started = time.perf_counter()
        try:
            changed = transform(module.graph, context)
        except Exception as error:
            log.warning("the pass %s raised and is left out", name, exc_info=True)
            return name, f"{type(error).__name__}: {error}"
        log.debug("%s: %d places in %.3f s", name, changed, time.perf_counter() - started)
        if changed and dump.path is not None:
            module.recompile()
            dump.graph(name, module)
    return None
