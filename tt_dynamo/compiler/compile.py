"""From an ATen graph to a program: passes, placement, layouts, tracing, and again where TTNN refused something."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Graph, GraphModule, Node

from tt_dynamo.compiler.codegen import program_source
from tt_dynamo.compiler.decisions import Decisions
from tt_dynamo.compiler.describe import fill_report, publish
from tt_dynamo.compiler.eligible import HostWork, gives, impossible, is_read_on_host, needs
from tt_dynamo.compiler.fit import explained
from tt_dynamo.compiler.float_positions import float_position_math
from tt_dynamo.compiler.measure import measure_program
from tt_dynamo.compiler.pipeline import run_passes
from tt_dynamo.compiler.states import find_states, keep_outputs
from tt_dynamo.compiler.trace import Trace, Tracer, settings_for
from tt_dynamo.compiler.traced_weights import bind_weights
from tt_dynamo.devices import Device
from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import FallbackError
from tt_dynamo.ir.graph import Context, Sides, compute_nodes, copy_graph, is_parameter
from tt_dynamo.ir.strides import correct_strides
from tt_dynamo.ir.uses import Settings
from tt_dynamo.options import Options
from tt_dynamo.passes import NEEDED_FOR_VALUES
from tt_dynamo.passes.normalize.constants import fold_constants
from tt_dynamo.passes.place.deallocations import insert_deallocations
from tt_dynamo.passes.place.layouts import assign_layouts
from tt_dynamo.passes.place.place import MOVES, place
from tt_dynamo.report.dump import Dump
from tt_dynamo.report.report import GraphReport
from tt_dynamo.runtime.program import Program
from tt_dynamo.runtime.recovery import LoweringNamespace, Recovery
from tt_dynamo.runtime.weights import WeightStore


class Compiler:
    """Compiles one graph for one device."""

    def __init__(
        self, module: GraphModule, device: Device, options: Options, name: str, *, assume: bool = True
    ) -> None:
        self.context = Context(assume=assume)
        self.module = module
        self.device = device
        self.options = options
        self.ttnn = device.namespace(dry_run=True)  # the module itself: every call at compile time is a real one
        self.report = GraphReport(name=name, device=device.description)
        self.dump = Dump.create(options.dump)
        self.decisions = Decisions(options)

    # AOTAutograd calls with its fake mode on; passes evaluate literals and TTNN is given real tensors.
    @unset_fake_temporarily()
    def compile(self) -> Program:
        """The program; emits its report."""
        self.dump.graph("aten", self.module)
        correct_strides(self.module.graph)
        output = self.module.graph.output_node()
        # Passes may change strides and what shares memory; the caller gets what eager torch gives.
        output.meta["eager"] = [v.meta.get("val") if isinstance(v, Node) else v for v in output.args[0]]
        self.eager = copied(self.module)
        with self._stage("passes"):
            self._run_passes()
        settings, texts = settings_for(self.ttnn, self.device, self.options)
        while True:
            with self._stage("placement"):
                graph, original, sides = self._place()
            with self._stage("lowering"), explained(graph, self.device, self.ttnn):
                found = self.device.resource(WeightStore).find
                traced = Tracer(graph, sides, self.ttnn, self.device.handle, settings, texts, found).run()
            if traced.refused:
                self.decisions.apply_refusals(traced.refused, original)
                if "fold_constants" not in self.raised:
                    fold_constants(self.module.graph, self.context)  # those that parts have among them
            elif not self.decisions.request_block_sharding(traced.wants_block_sharding, original):
                break
            del traced  # and with it what it allocated, before the next attempt allocates the same
        placed = GraphModule(self.module, graph)
        self.dump.graph("place_and_assign_layouts", placed)
        self._report_decisions()
        with self._stage("codegen"):
            program = self._program(placed, sides, traced, settings)
        with self._stage("measure"), explained(graph, self.device, self.ttnn):
            measured = measure_program(self.report.name, traced, self.ttnn, self.device.handle)
        fill_report(self.report, graph, sides, traced, measured)
        publish(self.report, self.dump, program, traced)
        return program

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.report.seconds[name] = self.report.seconds.get(name, 0.0) + time.perf_counter() - started

    def _run_passes(self) -> None:
        disabled = self.options.disable_passes
        self.context, self.raised = run_passes(self.module, self.eager, disabled, self.context.assume, self.dump)
        for name, error in self.raised.items():
            self.report.notes.append(f"the pass {name} was left out: it raised {error}")
            if name in NEEDED_FOR_VALUES:
                reason = f"the pass {name}, without which the device may compute other values, raised {error}"
                for node in compute_nodes(self.module.graph):
                    self.decisions.move_to_host(node, "unsupported", reason)

    def _place(self) -> tuple[Graph, dict[Node, Node], Sides]:
        """A copy of the graph, for each of its nodes the original, and where it runs: placed as was decided so far."""
        graph, original = copy_graph(self.module.graph)
        for node in original:
            if self.decisions[original[node]].block_sharded:
                node.update_kwarg("block_sharded", True)
        exact = float_position_math(graph) if self.options.placement != "device" else set()
        can_run = functools.partial(self._can_run, original=original, host_work=HostWork(graph), exact=exact)
        sides = place(graph, can_run, self.options.placement != "device")
        assign_layouts(graph, sides, gives, functools.partial(self._needs, original=original))
        find_states(graph, sides)
        keep_outputs(graph, self.options.cache_dtype)
        return graph, original, sides

    def _can_run(self, node: Node, original: dict[Node, Node], host_work: HostWork, exact: set[Node]) -> bool:
        """Whether the device may be asked about a node, which `exact` nodes are not; notes why not."""
        if self.decisions[original[node]].side or node in exact:
            return False
        is_integer_math = host_work.is_host_integer_math(node) and node.meta["val"].dtype != torch.bool
        if is_integer_math and self.options.placement != "device":
            return False  # a few bytes stay on the host, in the dtype that the reader wants
        reason = impossible(node)
        if not reason and is_read_on_host(node):
            if node.target in MOVES:
                return False
            reason = "TTNN lays out the weights of a convolution on the host, so they are computed there"
        if reason and not host_work.belongs_on_host(node):
            self.decisions.move_to_host(original[node], "unsupported", reason)
        return not reason

    def _needs(self, node: Node, operand: Node, original: dict[Node, Node]) -> tuple[str, str | None]:
        """What a node needs of an operand: layout and dtype; the weights of products as the options say."""
        layout, dtype = needs(node, operand)
        if node.target in operators.CACHE_WRITES and operand is node.args[0]:
            return layout, self.options.cache_dtype
        return layout, self.decisions.weight_dtype(node, operand, original.get(node, node)) or dtype

    def _report_decisions(self) -> None:
        """Put the decisions into the report. Raises FallbackError where one of them is not allowed."""
        self.report.notes += self.options.notes
        self.decisions.fill_report(self.report, self.module.graph)
        found = self.report.fallbacks
        if found and self.options.fallback == "error":
            share = f"{len(found)} of {len(compute_nodes(self.module.graph))} nodes"
            raise FallbackError(f'{found[0]}; {share} would run in eager torch and fallback="error" forbids it')

    def _program(self, placed: GraphModule, sides: Sides, traced: Trace, settings: Settings) -> Program:
        if "insert_deallocations" not in self.options.disable_passes:
            insert_deallocations(traced.graph)
        bind_weights(traced.weights, placed)
        self.report.code = program_source(traced.graph)
        placeholders = placed.graph.find_nodes(op="placeholder")
        position = {node: index for index, node in enumerate(placeholders)}
        results = placed.graph.output_node().args[0]
        strict = self.options.fallback == "error"
        namespace = LoweringNamespace(self.device.namespace(self.options.dry_run), settings)
        return Program(
            source=self.report.code,
            device=self.device,
            dry_run=self.options.dry_run,
            input_positions=[position[node] for node in traced.inputs],
            parameter_positions=[position[n] for n in placeholders if is_parameter(n)],
            held_positions=[position[n] for n in placeholders if n.meta.get("held")],
            states=traced.states,
            state_positions=[position[state.node] for state in traced.states],
            kept=[(at, spec, results[at].meta["val"]) for at, spec in traced.kept],
            results=len(results),
            weights=traced.weights,
            recovery=Recovery(placed, self.eager, sides, self.device.handle, namespace, strict),
            report=self.report,
            store=self.device.resource(WeightStore),
        )


def copied(module: GraphModule) -> GraphModule:
    """The module of a graph once more, for another compilation."""
    return GraphModule(module, copy_graph(module.graph)[0])
