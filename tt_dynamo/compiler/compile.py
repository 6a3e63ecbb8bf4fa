"""From an ATen graph to a program: passes, placement, layouts, tracing, and again where TTNN refused something."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from tt_dynamo.compiler.codegen import program_source
from tt_dynamo.compiler.eligible import HostWork, gives, impossible, is_read_on_host, needs
from tt_dynamo.compiler.fit import explained
from tt_dynamo.compiler.float_positions import float_position_math
from tt_dynamo.compiler.measure import MarkedNamespace, Measurement, give_host_values, measure, zeros
from tt_dynamo.compiler.pipeline import run_passes
from tt_dynamo.compiler.states import find_states, keep_outputs
from tt_dynamo.compiler.trace import Trace, settings_for, trace
from tt_dynamo.compiler.weight_dtypes import WeightDtypes
from tt_dynamo.devices import Device
from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import FallbackError
from tt_dynamo.ir.graph import (
    Context,
    Sides,
    compute_nodes,
    constant_nodes,
    copy_graph,
    find_fake_mode,
    is_parameter,
    is_random,
    mutates,
    splice,
)
from tt_dynamo.ir.spec import spec_bytes
from tt_dynamo.ir.strides import correct_strides
from tt_dynamo.options import Options
from tt_dynamo.passes import NEEDED_FOR_VALUES
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.constants import fold_constants
from tt_dynamo.passes.place.deallocations import insert_deallocations
from tt_dynamo.passes.place.layouts import assign_layouts
from tt_dynamo.passes.place.place import MOVES, place
from tt_dynamo.report.dump import Dump, InputSpec, WeightSpec
from tt_dynamo.report.report import Choice, Fallback, GraphReport, Operation, Transfer, emit
from tt_dynamo.runtime.program import Program, load
from tt_dynamo.runtime.recovery import Recovery
from tt_dynamo.runtime.weights import WeightStore

log = logging.getLogger(__name__)


class Compiler:
    """Compiles one graph for one device."""

    def __init__(
        self, module: GraphModule, device: Device, options: Options, name: str, *, assume: bool = True
    ) -> None:
        self.context = Context(assume=assume)
        self.module = module
        self.eager = copied(module)
        self.device = device
        self.options = options
        self.ttnn = device.namespace(dry_run=True)  # the module itself: every call at compile time is a real one
        self.report = GraphReport(name=name, device=device.description)
        self.dump = Dump.create(options.dump)
        self.refused: dict[Node, Fallback] = {}
        self.raised: dict[str, str] = {}  # pass → what it raised
        self.weight_dtypes = WeightDtypes(options)

    def compile(self) -> Program:
        """The program; emits its report."""
        # AOTAutograd calls with its fake mode on; passes evaluate literals and TTNN is given real tensors.
        with unset_fake_temporarily():
            return self._compile()

    def _compile(self) -> Program:
        self.dump.graph("aten", self.module)
        correct_strides(self.module.graph)
        output = self.module.graph.output_node()
        # Passes may change strides and what shares memory; the caller gets what eager torch gives.
        output.meta["eager"] = [v.meta.get("val") if isinstance(v, Node) else v for v in output.args[0]]
        with self._stage("passes"):
            self._run_passes()
        settings, texts = settings_for(self.ttnn, self.device, self.options)
        while True:
            with self._stage("placement"):
                graph, back = copy_graph(self.module.graph)
                exact = float_position_math(graph) if self.options.placement != "device" else set()
                can_run = functools.partial(self._can_run, back=back, host_work=HostWork(graph), exact=exact)
                sides = place(graph, can_run, self.options.placement != "device")
                assign_layouts(graph, sides, gives, functools.partial(self._needs, back=back))
                find_states(graph, sides)
                keep_outputs(graph, self.options.cache_dtype)
            with self._stage("lowering"), explained(graph, self.device, self.ttnn):
                found = self.device.resource(WeightStore).find
                traced = trace(graph, sides, self.ttnn, self.device.handle, settings, texts, found)
            if traced.refused:
                self._learn(traced, back)
            elif not self._rearrange(traced, back):
                break
            del traced  # and with it what it allocated, before the next attempt allocates the same
        placed = GraphModule(self.module, graph)
        self.dump.graph("place_and_assign_layouts", placed)
        with self._stage("codegen"):
            program = self._program(placed, sides, traced, settings)
        with self._stage("measure"), explained(graph, self.device, self.ttnn):
            measured = self._measure(traced)
        self._fill_report(graph, sides, traced, measured, program)
        self._finish(program, traced)
        return program

    @contextlib.contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.report.seconds[name] = self.report.seconds.get(name, 0.0) + time.perf_counter() - started

    def _run_passes(self) -> None:
        disabled = self.options.disable_passes
        self.context, self.raised = run_passes(self.module, disabled, self.context.assume, self.dump)
        for name, error in self.raised.items():
            self.report.notes.append(f"the pass {name} was left out: it raised {error}")
            if name in NEEDED_FOR_VALUES:
                reason = f"the pass {name}, without which the device may compute other values, raised {error}"
                for node in compute_nodes(self.module.graph):
                    self.refused[node] = Fallback(node.name, "unsupported", reason)

    def _can_run(self, node: Node, back: dict[Node, Node], host_work: HostWork, exact: set[Node]) -> bool:
        """Whether the device may be asked about a node, which `exact` nodes are not; notes why not."""
        if back[node] in self.refused or node in exact:
            return False
        is_integer_math = host_work.is_host_integer_math(node) and node.meta["val"].dtype != torch.bool
        if is_integer_math and self.options.placement != "device":
            return False  # a few bytes go up as whoever reads them wants them
        reason = impossible(node)
        if not reason and is_read_on_host(node):
            if node.target in MOVES:
                return False
            reason = "TTNN lays out the weights of a convolution on the host, so they are computed there"
        if reason and not host_work.belongs_on_host(node):
            original = back[node]
            self.refused[original] = Fallback(original.name, "unsupported", reason)
        return not reason

    def _needs(self, node: Node, operand: Node, back: dict[Node, Node]) -> tuple[str, str | None]:
        """What a node needs of an operand: layout and dtype; the weights of products as the options say."""
        layout, dtype = needs(node, operand)
        if node.target in operators.CACHE_WRITES and operand is node.args[0]:
            return layout, self.options.cache_dtype
        return layout, self.weight_dtypes.of(node, operand, back.get(node, node)) or dtype

    def _learn(self, traced: Trace, back: dict[Node, Node]) -> None:
        """Of every refused node: weights become bfloat16, fused ones are taken apart, others go to the host."""
        for node, (kind, reason) in traced.refused.items():
            original = back.get(node)
            if original is None:
                raise FallbackError(f"{node.name}: {reason}")
            logging.getLogger("tt_dynamo.lowering").debug("%s is %s: %s", original.name, kind, reason)
            if self.weight_dtypes.refuse(original, reason):
                continue
            if original.target in operators.FUSED:
                for part in _take_apart(original):
                    if part.target in operators.WHOLE:  # the same by its name in ATen: refused by the same words
                        self.refused[part] = Fallback(part.name, kind, reason)
            else:
                self.refused[original] = Fallback(original.name, kind, reason)
        if "fold_constants" not in self.raised:
            fold_constants(self.module.graph, self.context)  # those that parts have among them

    def _rearrange(self, traced: Trace, back: dict[Node, Node]) -> bool:
        """Have values lie in blocks where a reader had to shard them anew; whether there is one that did not yet."""
        found = [back[node] for node in traced.wants_block_sharding if operators.can_be_block_sharded(node)]
        changed = [node for node in found if "block_sharded" not in node.kwargs]
        for node in changed:
            node.update_kwarg("block_sharded", True)
        return bool(changed)

    def _program(self, placed: GraphModule, sides: Sides, traced: Trace, settings: Any) -> Program:
        if "insert_deallocations" not in self.options.disable_passes:
            insert_deallocations(traced.graph)
        fallbacks = self._fallbacks()
        if fallbacks and self.options.fallback == "error":
            first = fallbacks[0]
            nodes = len(compute_nodes(self.module.graph))
            raise FallbackError(
                f"{first.node}: {first.reason}; {len(fallbacks)} of {nodes} nodes would run in eager torch and "
                'fallback="error" forbids it'
            )
        placeholders = placed.graph.find_nodes(op="placeholder")
        position = {node: index for index, node in enumerate(placeholders)}
        evaluators, weight_positions = [], []
        for use in traced.weights:
            sources = list(use.node.all_input_nodes) if use.node.op == "call_module" else [use.node]
            weight_positions.append([position[n] for n in sources if n in position])
            evaluators.append(_evaluator(use.node, placed))
        results = placed.graph.output_node().args[0]
        strict = self.options.fallback == "error"
        namespace = self.device.namespace(self.options.dry_run)
        return Program(
            source=program_source(traced.graph),
            device=self.device,
            dry_run=self.options.dry_run,
            strict=strict,
            input_positions=[position[node] for node in traced.inputs],
            parameter_positions=[position[n] for n in placeholders if is_parameter(n)],
            held_positions=[position[n] for n in placeholders if n.meta.get("held")],
            states=traced.states,
            state_positions=[position[state.node] for state in traced.states],
            kept=[(at, spec, results[at].meta["val"]) for at, spec in traced.kept],
            results=len(results),
            weights=traced.weights,
            weight_positions=weight_positions,
            evaluators=evaluators,
            recovery=Recovery(placed.graph, self.eager, sides, self.device.handle, namespace, settings, strict),
            report=self.report,
            store=self.device.resource(WeightStore),
        )

    def _fallbacks(self) -> list[Fallback]:
        """Of what was refused: what work is left of it that belongs on the device."""
        host_work = HostWork(self.module.graph)
        return [
            fallback
            for node, fallback in self.refused.items()
            if (node.users or mutates(node)) and not host_work.belongs_on_host(node)
        ]

    def _measure(self, traced: Trace) -> Measurement:
        """One run of the TTNN calls on zeros, counted by TTNN; nothing of it survives."""
        graph, _ = copy_graph(traced.graph)
        given = give_host_values(graph)
        forward = load(program_source(graph), MarkedNamespace(self.ttnn))
        with torch.no_grad():
            inputs = [zeros(node.meta["val"]) for node in traced.inputs]
            states = [state.tensor for state in traced.states]
            weights = [use.tensor if use.spec else zeros(use.node.meta["val"]) for use in traced.weights]
            try:
                return measure(self.ttnn, lambda: forward(self.device.handle, *inputs, *states, *weights, *given))
            except MemoryError:
                raise
            except Exception as error:
                log.warning("%s: could not be measured: %s", self.report.name, error)
                return Measurement()
            finally:
                traced.release()

    def _fill_report(self, graph: Graph, sides: Sides, traced: Trace, measured: Measurement, program: Program) -> None:
        report = self.report
        constants = constant_nodes(graph)
        computing = [n for n in compute_nodes(graph) if n not in constants and n.target not in operators.TRANSFERS]
        report.nodes = len(computing)
        report.device_nodes = sum(sides.get(node) == "device" for node in computing)
        report.host_nodes = report.nodes - report.device_nodes
        report.fallbacks = self._fallbacks()
        report.notes += [*self.options.notes, *self.weight_dtypes.notes(list(self.refused))]
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
        report.code = program.source

    def _finish(self, program: Program, traced: Trace) -> None:
        report = self.report
        if self.dump.path is not None:
            self.dump.drawing(traced.graph)
            self.dump.report(report)
            program.on_first_weights = self._dump_program(program, traced)
        emit(report)
        log.info(
            "%s on %s: %d nodes, %.1f%% on the device, %d fallbacks, %d kernel launches, compiled in %.2f s",
            report.name,
            report.device,
            report.nodes,
            100 * report.device_share,
            len(report.fallbacks),
            report.device_programs,
            sum(report.seconds.values()),
        )

    def _dump_program(self, program: Program, traced: Trace) -> Callable[[list[torch.Tensor]], None]:
        placeholders = traced.graph.find_nodes(op="placeholder")
        names = [node.name for node in placeholders]
        count, states = len(traced.inputs), len(traced.states)
        inputs = [
            InputSpec(name, tuple(node.meta["val"].shape), node.meta["val"].dtype)
            for name, node in zip(names[:count], traced.inputs, strict=True)
        ]
        specs = [state.spec for state in traced.states] + [use.spec for use in traced.weights]
        weights = [
            WeightSpec(name, spec.calls if spec else ()) for name, spec in zip(names[count:], specs, strict=True)
        ]
        empty = [torch.zeros(spec.shape) for spec in specs[:states] if spec is not None]  # caches, as they begin

        def write(tensors: list[torch.Tensor]) -> None:
            values = {weight.name: tensor for weight, tensor in zip(weights, [*empty, *tensors], strict=True)}
            self.dump.program(program.source, inputs, weights, values)

        return write


def copied(module: GraphModule) -> GraphModule:
    """The module of a graph once more, for another compilation."""
    return GraphModule(module, copy_graph(module.graph)[0])


def _take_apart(node: Node) -> list[Node]:
    """Replace a fused operation by the ATen operations of its torch implementation, and return those."""
    operands = list(node.all_input_nodes)

    def call(*values: torch.Tensor) -> Any:
        known = dict(zip(operands, values, strict=True))
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: known[n])
        return node.target.decompose(*args, **kwargs)

    with find_fake_mode(node.graph):
        inner = make_fx(call)(*(n.meta["val"] for n in operands))
    if node.target is not operators.linear:  # which would be made of its parts again
        canonicalize(inner.graph, Context())
    return [part for part in splice(node, inner, operands) if not _merged(part)]


def _merged(part: Node) -> bool:
    """Whether another node computes the same already, and takes its place: layers read one mask, moved in one way."""
    for twin in part.all_input_nodes[0].users if part.all_input_nodes and not is_random(part) else ():
        if twin < part and (twin.target, twin.args, twin.kwargs) == (part.target, part.args, part.kwargs):
            part.replace_all_uses_with(twin, propagate_meta=False)
            part.graph.erase_node(part)
            return True
    return False


def _evaluator(node: Node, placed: GraphModule) -> tuple[str, Callable[..., torch.Tensor]]:
    """What a constant is computed by, on the host, and the text that identifies the computation."""
    if node.op == "placeholder":
        return "", lambda tensor: tensor
    value: Any = getattr(placed, node.target)
    if node.op == "get_attr":
        return _digest(value), lambda: value
    return value.code + "".join(name + _digest(buffer) for name, buffer in value.named_buffers()), value


def _digest(literal: torch.Tensor) -> str:
    contents = literal.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{literal.dtype} {tuple(literal.shape)} {hashlib.sha256(contents).hexdigest()}"
