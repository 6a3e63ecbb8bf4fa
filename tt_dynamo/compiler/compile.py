"""From an ATen graph to a program: passes, placement, layouts, tracing, and again where TTNN refused something."""

import contextlib
import functools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Graph, GraphModule, Node

from tt_dynamo.compiler.banks import PHASES, Banks
from tt_dynamo.compiler.codegen import program_source
from tt_dynamo.compiler.configs import Configs, phase_of
from tt_dynamo.compiler.decisions import CONVOLUTIONS, WIDEST, Decisions
from tt_dynamo.compiler.edited import Interface, edited_program, interface_of
from tt_dynamo.compiler.eligible import HostWork, gives, impossible, is_read_on_host, needs
from tt_dynamo.compiler.fit import collect_l1, explained
from tt_dynamo.compiler.measure import fill_report, measure_program
from tt_dynamo.compiler.outputs import arrange_outputs
from tt_dynamo.compiler.settings import recorder_for
from tt_dynamo.compiler.shardings import Shardings
from tt_dynamo.compiler.states import keep_outputs, keep_states
from tt_dynamo.compiler.stream_costs import StreamCosts
from tt_dynamo.compiler.trace import Trace
from tt_dynamo.compiler.traced_weights import bind_weights
from tt_dynamo.compiler.traces.source import trace_source
from tt_dynamo.compiler.weights.gates import Gates
from tt_dynamo.devices import Device
from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.errors import FallbackError
from tt_dynamo.ir.graph import (
    Context,
    Sides,
    compute_nodes,
    copied,
    copy_graph,
    dtype_of,
    is_call,
    is_parameter,
    target_name,
    values_of,
)
from tt_dynamo.ir.parts import whole_shape
from tt_dynamo.ir.strides import as_eager_gives
from tt_dynamo.ir.uses import Settings
from tt_dynamo.options import OptionError, Options
from tt_dynamo.passes import NEEDED_FOR_VALUES, PASSES, Pass
from tt_dynamo.passes.images.stem import fold_stem
from tt_dynamo.passes.normalize.constants import fold_constants
from tt_dynamo.passes.place.block_floats import assign_image_dtypes
from tt_dynamo.passes.place.deallocations import insert_deallocations
from tt_dynamo.passes.place.layouts import assign_layouts
from tt_dynamo.passes.place.memory import assign_memory
from tt_dynamo.passes.place.place import MOVES, place
from tt_dynamo.passes.place.positions import FLOAT32, keep_positions, reads_exactly
from tt_dynamo.passes.shard.crossings import cut_late, note_parts, on_host
from tt_dynamo.passes.shard.shard import Parallel, shard
from tt_dynamo.passes.shard.varying import varying
from tt_dynamo.report.dump import Dump
from tt_dynamo.report.report import GraphReport, emit
from tt_dynamo.runtime.program import Program
from tt_dynamo.runtime.recovery import LoweringNamespace, Recovery
from tt_dynamo.runtime.traces.traces import Traces
from tt_dynamo.runtime.transfer import border_of
from tt_dynamo.runtime.weights import WeightStore

log = logging.getLogger(__name__)


class Compiler:
    """Compiles one graph for one device."""

    def __init__(
        self, module: GraphModule, device: Device, options: Options, name: str, *, assume: bool = True
    ) -> None:
        grid = device.handle.compute_with_storage_grid_size()
        self.cores = grid.x, grid.y
        self.context = Context(assume=assume, cores=grid.x * grid.y)
        self.module = module
        self.device = device
        self.options = options
        self.ttnn = device.namespace(dry_run=True)  # every call at compile time is a real one
        self.report = GraphReport(name=name, device=device.description)
        self.dump = Dump.create(options.dump)
        self.decisions = Decisions(options)
        self.passes = [transform for transform in PASSES if transform.__name__ not in options.disable_passes]

    # AOTAutograd calls with its fake mode on; passes evaluate literals and TTNN is given real tensors.
    @unset_fake_temporarily()
    def compile(self, eager: GraphModule | None = None) -> Program:
        """The program; emits its report. eager: a copy of the graph as it came, where the caller has one."""
        with self.device.resource(Traces).turn():
            self.eager = eager or as_eager_gives(self.module)
            return self._compile()

    def _compile(self) -> Program:
        self.dump.graph("aten", self.module)
        self.start = self.eager
        if self.device.chips > 1:
            with self._stage("shard"):
                self._shard()
        elif (self.options.data_parallel or 1) > 1 or isinstance(self.options.tensor_parallel, tuple):
            raise OptionError(
                f"data_parallel and a plan as tensor_parallel are for meshes; {self.device.board} is one chip"
            )
        with self._stage("passes"):
            self._run_passes()
            if self.device.chips > 1:
                cut_late(self.module.graph)
        configs = Configs(self.options.configs, self.device, phase_of(self.module.graph))
        recorder, settings_of = recorder_for(self.ttnn, self.device, self.options, configs)
        self.decisions.configs = configs
        gates = Gates(recorder, configs, settings_of, self.decisions.weight_dtype)
        if recorder.settings.searches and gates.fuse(self.module.graph) and fold_constants in self.passes:
            fold_constants(self.module.graph, self.context)
        stream_costs = StreamCosts(recorder.settings)
        shardings = Shardings(recorder.settings, self.module)
        find = self.device.resource(WeightStore).find
        is_step = configs.phase in PHASES and self.options.optimize != "off"
        banks = Banks(recorder, recorder.settings.chip.banks, find) if is_step else None
        while True:
            recorder.compares_shardings = shardings.are_compared
            with self._stage("placement"):
                graph, sides = self._place(stream_costs)
                if self.device.chips > 1 and (stranded := on_host(graph, sides)):
                    self._compute_whole(stranded)
                    continue
                in_banks = banks.assign(graph, self.decisions.reads_interleaved) if banks else 0
            try:
                with self._stage("lowering"), explained(graph, self.device, self.ttnn):
                    collect_l1(self.ttnn, self.device.handle)
                    traced = Trace(graph, sides, self.ttnn, self.device, recorder, settings_of).run()
            except (MemoryError, OptionError) as error:
                if shardings.give_up():
                    continue
                if isinstance(error, OptionError) or banks is None or not in_banks:
                    raise
                banks.refused = True
                continue
            said = traced.refused, traced.wants_block_sharding, traced.left_l1, traced.refused_dtypes
            if not any((traced.refused, traced.left_l1, traced.refused_dtypes)) or not shardings.give_up():
                if self._leaves_out_stem(traced.refused):
                    continue
                if not self.decisions.learn(*said) and not shardings.ask_for_another(traced.graph):
                    break
            if traced.refused and fold_constants in self.passes:
                fold_constants(self.module.graph, self.context)  # those that parts have among them
            del traced  # and with it what it allocated, before the next attempt allocates the same
        placed = GraphModule(self.module, graph)
        self.dump.graph("place_and_assign_layouts", placed)
        self._report_decisions()
        self.report.notes += configs.notes() + gates.notes + (banks.notes if banks else [])
        if self.options.tune:
            self.report.notes += _tuning_notes(self.device, self.options)
        self.report.configured_for = f"@{configs.phase}@{configs.board}"
        with self._stage("codegen"):
            program = self._program(placed, sides, traced, recorder.settings)
        with self._stage("measure"), explained(graph, self.device, self.ttnn), contextlib.closing(traced):
            launches = measure_program(self.report, traced.graph, traced.arguments(), self.ttnn, self.device)
        fill_report(self.report, graph, sides, traced, launches)
        chip = recorder.settings.chip
        self.report.launch_gap_seconds = chip.launch_gap_seconds
        self.report.host_bytes_per_second = chip.host_bytes_per_second
        self._publish(program, traced)
        return program

    def _shard(self) -> None:
        """Have the graph be that of one chip of the mesh."""
        parallel = Parallel(self.device.shape, self.options.tensor_parallel, self.options.data_parallel)
        self.module.graph, notes = shard(self.module, parallel)
        self.report.notes += notes
        self.spread_notes = notes
        self.dump.graph("shard", self.module)
        self.start = copied(self.module)

    def _publish(self, program: Program, traced: Trace) -> None:
        """Dump what the compilation ended in, hand out its report, and log it in a line."""
        report, dump = self.report, self.dump
        if dump.path is not None:
            dump.drawing(traced.graph)
            dump.report(report)
            given = traced, program_source(traced.graph), interface_of(self.eager, traced)
            program.on_first_weights = functools.partial(_dump_program, dump, *given)
        emit(report)
        placed = f"{report.nodes} nodes, {report.device_share:.1%} on the device, {len(report.fallbacks)} fallbacks"
        run = f"{report.device_programs} kernel launches, compiled in {sum(report.seconds.values()):.2f} s"
        log.info("%s on %s: %s, %s", report.name, report.device, placed, run)

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.report.seconds[name] = self.report.seconds.get(name, 0.0) + time.perf_counter() - started

    def _run_passes(self) -> None:
        for transform in self.passes:
            name, log = transform.__name__, logging.getLogger(transform.__module__)
            started = time.perf_counter()
            try:
                changed = transform(self.module.graph, self.context)
            except Exception as error:
                log.warning("the pass %s raised and is left out", name, exc_info=True)
                self._leave_out(transform, f"{type(error).__name__}: {error}")
                return self._run_passes()
            log.debug("%s: %d places in %.3f s", name, changed, time.perf_counter() - started)
            if changed and self.dump.path is not None:
                self.module.recompile()
                self.dump.graph(name, self.module)
        for node in self.module.graph.nodes:
            node.meta.pop(meta.value.key, None)  # contents of literals, that the program's graph would keep

    def _leave_out(self, failed: Pass, error: str) -> None:
        """Have the passes but one, which raised, perhaps halfway, run anew on the graph as it was before all.

        None run where the device would compute other values without that one.
        """
        self._begin_anew(failed, f"it raised {error}")
        if failed.__name__ in NEEDED_FOR_VALUES:
            self.passes = []
            without = f"the pass {failed.__name__}, without which the device may compute other values"
            for node in compute_nodes(self.module.graph):
                self.decisions.move_to_host(node, "unsupported", f"{without}, raised {error}")

    def _leaves_out_stem(self, refused: Mapping[Node, tuple[str, str]]) -> bool:
        """Whether TTNN refused to fold images, whose convolution then is to read them as it would without the fold."""
        reasons = [reason for node, (_, reason) in refused.items() if is_call(node, operators.space_to_depth)]
        if reasons:
            self._begin_anew(fold_stem, f"TTNN refused its fold: {reasons[0]}")
            self._run_passes()
            self._decide_anew()
        return bool(reasons)

    def _decide_anew(self) -> None:
        configs, self.decisions = self.decisions.configs, Decisions(self.options)
        self.decisions.configs = configs

    def _compute_whole(self, stranded: Sequence[Node]) -> None:
        """Have every chip compute the whole graph, since the host would have to compute these for each by itself."""
        known = self.decisions.reason_of(stranded[0])
        reason = f"{target_name(stranded[0])}, of which each chip has another part, would run on the host: {known}"
        log.warning("%s: every chip computes the whole graph: %s", self.report.name, reason)
        self.report.notes = [note for note in self.report.notes if note not in self.spread_notes]
        self.report.notes.append(f"not spread over the chips, each computes the whole graph: {reason}")
        self.start = self.eager
        self._go_back()
        self._run_passes()
        self._decide_anew()

    def _begin_anew(self, without: Pass, reason: str) -> None:
        """Go back to the graph as it was before all passes, and leave one out."""
        self.report.notes.append(f"the pass {without.__name__} was left out: {reason}")
        self._go_back()
        self.passes.remove(without)

    def _go_back(self) -> None:
        self.module.graph, _ = copy_graph(self.start.graph)
        self.context = Context(assume=self.context.assume, cores=self.context.cores)

    def _place(self, stream_costs: StreamCosts) -> tuple[Graph, Sides]:
        """A copy of the graph, placed as was decided so far, and where each of its nodes runs."""
        graph = self.decisions.copied(self.module.graph)
        may_choose, keeps_outputs = self.options.placement != "device", self.options.outputs == "device"
        of_chips = varying(graph) if self.device.chips > 1 else ()
        can_run = functools.partial(self._can_run, host_work=HostWork(graph))
        sides = place(graph, can_run, may_choose, keeps_outputs, of_chips)
        keep_positions(graph, sides, self.decisions.refuses_dtype)
        assign_layouts(graph, sides, gives, self._needs)
        if self.device.chips > 1:
            note_parts(graph, len(self.device.shape), of_chips)
        self._set_weight_dtypes(graph)
        keep_states(graph, sides)
        keep_outputs(graph, self.options.cache_dtype, keeps_outputs)
        arrange_outputs(graph)
        if self.options.optimize == "latency":
            is_step = self.decisions.configs is not None and self.decisions.configs.phase in PHASES
            dtype = WIDEST if phase_of(graph) == "prefill" else self.options.activation_dtype
            refused = self.decisions.times_l1_refused, is_step, dtype, self.decisions.refuses_dtype
            assign_memory(graph, sides, self.cores, stream_costs, *refused)
            if dtype != WIDEST:
                assign_image_dtypes(graph, sides, dtype, self.decisions.refuses_dtype)
        return graph, sides

    def _can_run(self, node: Node, host_work: HostWork) -> bool:
        """Whether the device may be asked about a node; notes why not."""
        if self.decisions.is_on_host(node):
            return False
        is_integer_math = node in host_work.integer_math and values_of(node)[0].dtype != torch.bool
        if (is_integer_math or node in host_work.positions) and self.options.placement != "device":
            return False  # a few bytes stay on the host, in the dtype that the reader wants, and positions exact
        reason = impossible(node)
        if not reason and is_read_on_host(node):
            if node.target in MOVES:
                return False
            reason = "TTNN lays out the weights of a convolution on the host, so they are computed there"
        if reason and not host_work.belongs_on_host(node):
            self.decisions.move_to_host(node, "unsupported", reason)
        return not reason

    def _needs(self, node: Node, operand: Node) -> tuple[str, str | None]:
        """What a node needs of an operand: layout and dtype; the weights of products as the options say."""
        layout, dtype = needs(node, operand)
        if layout == "HOST":
            return layout, dtype  # TTNN lays it out in its dtype, of bfloat16
        if node.target in operators.CACHE_WRITES and operand in operators.caches_of(node):
            return layout, self.options.cache_dtype
        if dtype is None and reads_exactly(node) and dtype_of(operand).is_floating_point:
            return layout, FLOAT32
        return layout, self.decisions.weight_dtype(node, operand) or dtype

    def _set_weight_dtypes(self, graph: Graph) -> None:
        """Note in which dtype TTNN is to lay out the weights of convolutions."""
        for target in CONVOLUTIONS:
            for node in graph.find_nodes(op="call_function", target=target):
                dtype = self.decisions.weight_dtype(node, node.args[1])
                if dtype is not None:
                    meta.weight_dtype.set(node, dtype)

    def _report_decisions(self) -> None:
        """Put the decisions into the report. Raises FallbackError where one of them is not allowed."""
        self.report.notes += self.options.notes
        self.decisions.fill_report(self.report, self.module.graph)
        found = self.report.fallbacks
        if found and self.options.fallback == "error":
            share = f"{len(found)} of {len(compute_nodes(self.module.graph))} nodes"
            raise FallbackError(f'{found[0]}; {share} would run in eager torch and fallback="error" forbids it')

    def _program(self, placed: GraphModule, sides: Sides, traced: Trace, settings: Settings) -> Program:
        makes_caches = bool(meta.kept.get(placed.graph.output_node(), ()))
        parts = trace_source(traced.graph, self.options, self.report, self.device, makes_caches)
        if "insert_deallocations" not in self.options.disable_passes:
            insert_deallocations(traced.graph)
        bind_weights(traced.weights, placed, self.device.shape)
        self.report.code, edited = program_source(traced.graph), None
        position = {node: index for index, node in enumerate(placed.graph.find_nodes(op="placeholder"))}
        output = placed.graph.output_node()
        eager = meta.eager(output)
        strict, weights = self.options.fallback == "error", (self.options.weight_cache, self.options.weight_cache_limit)
        border = border_of(self.device, self.report, self.options.dry_run, *weights)
        if self.options.program is not None:
            edited = edited_program(Path(self.options.program), interface_of(self.eager, traced), border.namespace)
            self.report.code = edited.read_text(encoding="utf-8")
            self.report.notes.append(f"{edited} runs; launches, memory and estimates are of the generated program")
        return Program(
            source=self.report.code,
            device=self.device,
            input_positions=[position[node] for node in traced.inputs],
            parameter_positions=[position[n] for n in position if is_parameter(n)],
            held_positions=[position[n] for n in position if meta.held.get(n, False)],
            states=traced.states,
            state_positions=[position[state.node] for state in traced.states],
            kept=[(at, spec, eager[at]) for at, spec in traced.kept],
            results=len(eager),
            weights=traced.weights,
            recovery=Recovery(placed, self.eager, sides, border, LoweringNamespace(border.namespace, settings), strict),
            report=self.report,
            store=self.device.resource(WeightStore),
            edited=edited,
            parts=parts,
        )


def _tuning_notes(device: Device, options: Options) -> list[str]:
    if options.optimize != "latency":
        return [f"tune: nothing is timed where optimize is {options.optimize!r}"]
    times = f"times are the estimate's, not measured: {device.board} is emulated"
    return [f"tune: {times}"] if device.emulated else []


def _dump_program(dump: Dump, traced: Trace, source: str, given: Interface, tensors: list[torch.Tensor]) -> None:
    """Dump a program that runs alone, with the tensors of its weights."""
    shapes = (whole_shape(s.spec.shape, s.spec.placement, traced.mesh) for s in traced.states)
    names = [weight.name for weight in given.weights]
    read = dict(zip(names, [*map(torch.zeros, shapes), *tensors], strict=True))  # caches, as they begin
    dump.program(source, given.inputs, given.weights, read, given.digest, traced.mesh)
