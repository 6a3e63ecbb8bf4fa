"""The entry point that torch.compile finds as backend="ttnn"."""

import contextlib
import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from functorch.compile import make_boxed_func, min_cut_rematerialization_partition
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.fx import GraphModule

from tt_dynamo.capture.aliases import misjudged_inputs
from tt_dynamo.capture.buckets import OutsideBucket
from tt_dynamo.capture.decompositions import decompositions
from tt_dynamo.capture.growing import split_growing
from tt_dynamo.capture.higher_order import regularize, trace_through
from tt_dynamo.capture.inputs import GraphInput, describe_inputs, described_input, part_of, source_of
from tt_dynamo.capture.keep_whole import asks_for_gradients, kept_whole
from tt_dynamo.capture.skipped import warn_of_skipped_rnns
from tt_dynamo.capture.specialize import Specializations, in_eager, report_eager
from tt_dynamo.compilation import Compilation
from tt_dynamo.devices import Device, open_device
from tt_dynamo.ir.graph import Assumption, compute_nodes, copied
from tt_dynamo.ir.torch_internals import aot_autograd
from tt_dynamo.options import Options
from tt_dynamo.runtime.caches import DeviceTensor, unfetched
from tt_dynamo.runtime.guards import Assuming
from tt_dynamo.saving import is_to_be_saved, refuse_to_save, saved, serializable, set_key

log = logging.getLogger(__name__)

_names = itertools.count()
_log_once = functools.cache(log.info)


def ttnn(
    module: GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
    **_: Any,
):
    """Compile a Dynamo graph for TTNN.

    Raises OptionError for an unknown option or mode, DeviceError where the device cannot be opened, FallbackError where
    a node would run in eager torch and options["fallback"] is "error".
    """
    parsed = Options.parse({"mode": mode or "default", **(options or {})})
    for note in parsed.notes:
        _log_once(note)
    device = open_device(parsed.device, parsed.queues)
    device.check_open()
    if _symbolic(module, example_inputs):
        refuse_to_save("its sizes vary; compile with dynamic=False")
        return _compile_symbolic(module, device, parsed)
    return compile_graph(module, example_inputs, device, parsed)


def _compile_symbolic(module: GraphModule, device: Device, options: Options) -> Callable[..., Any]:
    def specialize(part: GraphModule) -> Specializations:
        def compile_(graph: GraphModule, inputs: Sequence[Any], notes: Sequence[str]) -> Callable[..., Any]:
            return compile_graph(graph, inputs, device, options, notes=notes)

        def fit(graph: GraphModule, inputs: Sequence[Any], other: GraphModule, shorter: Sequence[Any]) -> Any:
            return _compile_bucket(graph, inputs, _traced(other, shorter), device, options)

        return Specializations(part, compile_, fit, options)

    split = split_growing(module, specialize) if options.fallback != "error" else None
    if split is None:
        return specialize(module)
    whole, eager = split
    name = f"graph_{next(_names)}"
    reason = "it reads a cache that grows with every call; a static cache stays on the device"
    report_eager(eager, reason, len(eager), name, device.description, options)
    log.warning("%s: %d nodes run in eager torch, the first of them %s: %s", name, len(eager), eager[0].name, reason)
    return whole.forward


def _symbolic(module: GraphModule, example_inputs: Sequence[Any]) -> bool:
    """Whether the graph has a size that Dynamo does not hold fixed; not where it takes tensors of several sizes."""
    examples = [node.meta.get("example_value") for node in module.graph.find_nodes(op="placeholder")]
    tensors = [value for value in examples if isinstance(value, torch.Tensor)]
    if any(value.is_nested for value in tensors):
        return False
    numbers = [*example_inputs, *(size for value in tensors for size in value.shape)]
    return any(isinstance(number, (torch.SymInt, torch.SymFloat, torch.SymBool)) for number in numbers)


def _compile_bucket(
    module: GraphModule, inputs: Sequence[Any], shorter: GraphModule, device: Device, options: Options
) -> tuple[Callable[..., Any], int]:
    """A Dynamo graph, whose last input is the length of a prompt, that is right for prompts shorter than it is.

    shorter: the ATen graph for one row less. Returns what is called, and how many rows a prompt must have at least.
    """
    from tt_dynamo.passes.prompts.fit import fit_to_length  # with all passes, which a program from the cache needs not

    shortest = 0

    @unset_fake_temporarily()
    def fit(graph: GraphModule) -> list[Assumption]:
        nonlocal shortest
        length = next(n for n in graph.graph.find_nodes(op="placeholder") if source_of(n) == (len(inputs) - 1, []))
        found = fit_to_length(graph.graph, shorter.graph, length)
        graph.recompile()
        shortest = found.shortest
        return [Assumption((start,), 0) for start in found.starts]

    notes = [f"prompt_buckets: for prompts of up to {int(inputs[-1])} tokens, padded at the end"]
    return compile_graph(module, inputs, device, options, fit=fit, notes=notes), shortest


@unfetched()
def _traced(module: GraphModule, inputs: Sequence[Any]) -> GraphModule:
    """The ATen graph of a Dynamo graph whose sizes are numbers."""
    found: list[GraphModule] = []

    def keep(graph: GraphModule, _: Any) -> Callable[..., Any]:
        regularize(graph)
        found.append(graph)
        return make_boxed_func(graph.forward)

    trace_through(module)
    with kept_whole(module, inputs):
        _aot(module, inputs, keep, keep)
    return found[0]


def _aot(module: GraphModule, inputs: Sequence[Any], forward: Any, backward: Any) -> Callable[..., Any]:
    compiled: Callable[..., Any] = aot_autograd(
        fw_compiler=forward,
        bw_compiler=backward,
        # Saves what is costly to compute again, so that few values come down and go up between the two graphs.
        partition_fn=min_cut_rematerialization_partition,
        decompositions=decompositions(),
        keep_inference_input_mutations=True,  # what is written may stay on the device
    )(module, inputs)
    return compiled


@unfetched()
def compile_graph(
    module: GraphModule,
    inputs: Sequence[Any],
    device: Device,
    options: Options,
    instead: Callable[[GraphModule], Callable[..., Any]] | None = None,
    fit: Callable[[GraphModule], list[Assumption]] | None = None,
    notes: Sequence[str] = (),
) -> Callable[..., Any]:
    """Compile a Dynamo graph whose sizes are numbers.

    instead: makes of an ATen graph what is called for it. fit: rewrites an ATen graph for prompts of any length, and
    gives the assumptions outside of which none of its programs may run. notes: for the report.
    """
    warn_of_skipped_rnns()
    shared = misjudged_inputs(inputs)
    if shared:
        placeholders = list(module.graph.find_nodes(op="placeholder"))
        nodes, count = [placeholders[at] for at in shared], len(compute_nodes(module.graph))
        reason = "it shares elements with another input, and AOTAutograd takes the two for apart"
        refuse_to_save(reason)
        report_eager(nodes, reason, count, f"graph_{next(_names)}", device.description, options)
        return module.forward
    if asks_for_gradients(inputs):
        options = options.for_gradients()
    trace_through(module)
    given = [described_input(node, DeviceTensor) for node in module.graph.find_nodes(op="placeholder")]
    is_held = any(source.held for source in given)
    if is_held:
        refuse_to_save("an input lies on the device")
    is_saved = is_to_be_saved() and not (is_held or instead or fit)
    described: dict[str, GraphInput] = {}
    tracing = contextlib.ExitStack()

    def forward(graph: GraphModule, _: Any) -> Callable[..., Any]:
        tracing.close()
        placeholders = graph.graph.find_nodes(op="placeholder")
        described.update((n.name, part_of(given, inputs, *source)) for n in placeholders if (source := source_of(n)))
        return compiler(graph)

    def compiler(graph: GraphModule, _: Any = None) -> Callable[..., Any]:
        describe_inputs(graph, described)
        name = f"graph_{next(_names)}"
        eager = in_eager(graph, name, device.description, options)
        if eager is not None:
            return saved(eager, None, options) if is_saved else eager
        regularize(graph)
        sure = fit(graph) if fit is not None else []
        # What is saved runs without its graph: for all values of its inputs, and described when it was compiled.
        made = Compilation(graph, device, compiling, name, assume=not is_saved, notes=notes)
        program: Any = made.program()
        if assumptions := [*sure, *made.assumptions]:

            def compile_general() -> Any:
                if fit is not None:
                    raise OutsideBucket
                return Compilation(copied(made.eager), device, options, f"{name}_general", assume=False).program()

            names = [node.name for node in graph.graph.find_nodes(op="placeholder")]
            program = Assuming(program, names, assumptions, compile_general)
        # AOTAutograd copies the attributes of what it is given onto its wrappers, which would outlive the device.
        call: Any = functools.partial(instead(graph) if instead else program)
        call._boxed_call = True
        return saved(call, program, options) if is_saved else call

    compiling = dataclasses.replace(options, cache=False) if is_saved else options
    if is_saved:
        set_key(module, inputs, device, options, {"given": given, "notes": list(notes)})
    with tracing:
        tracing.enter_context(kept_whole(module, inputs))
        compilers = map(serializable, (forward, compiler)) if is_saved else (forward, compiler)
        compiled = _aot(module, inputs, *compilers)
    # Of a function without attributes: the wrapper has those of what it wraps, and one would be Dynamo's to call.
    return unfetched()(lambda *args: compiled(*args)) if is_held else compiled
