"""Lower a placed graph by tracing it: every TTNN call is made once, and what was made is the program.

Each node on the device goes through its lowering, which sees the recorder; each node on the host is copied as it is;
transfers become from_torch and to_torch. A node that TTNN refuses is noted with its words and traced on with an empty
tensor in its place, so that one trace finds every refusal.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node

from tt_dynamo.compiler.measure import dram_or_error
from tt_dynamo.compiler.prepare import prepare_weights
from tt_dynamo.compiler.recorder import Recorder, erase_after
from tt_dynamo.compiler.shards import Shards
from tt_dynamo.compiler.traced_weights import Find, TracedWeights
from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Refused, Unsupported
from tt_dynamo.ir.graph import Sides, device_arguments, is_call, is_parameter, module_path, shape_of
from tt_dynamo.ir.helpers import as_bfloat16, checked, restrided, shared
from tt_dynamo.ir.spec import DEVICE_DTYPES, Spec, Value, spec_bytes
from tt_dynamo.ir.torch_internals import last_node, nodes_after
from tt_dynamo.ir.ttnn_internals import ttnn_reason
from tt_dynamo.ir.uses import Settings, StateUse, WeightUse
from tt_dynamo.lowering import find as find_lowering
from tt_dynamo.lowering.registry import Lowering
from tt_dynamo.lowering.workarounds import compute_kernel_config, math_fidelity
from tt_dynamo.passes.place.deallocations import drop_dead_calls
from tt_dynamo.runtime.outputs import Result, arranged, is_strided, memory_of
from tt_dynamo.runtime.transfer import INT32

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Trace:
    """What tracing gives: the program's graph, the graph inputs it reads, its weights, what stays on the device between
    calls, and who was refused and why."""

    graph: Graph
    inputs: list[Node]
    weights: list[WeightUse]
    states: list[StateUse]
    kept: list[tuple[int, Spec]]  # outputs that stay on the device: position and spec
    refused: dict[Node, tuple[str, str]]  # node → (kind, reason)
    wants_block_sharding: list[Node]  # whose results a reader had to shard anew

    def release(self) -> None:
        """Free what stood in for weights and states."""
        for use in self.weights:
            use.tensor = None
        for state in self.states:
            state.tensor = None


def settings_for(ttnn: Any, device: Any, options: Any) -> tuple[Settings, dict[str, Any]]:
    """The settings of a device, and the expression that makes each of its objects."""
    grid = device.handle.compute_with_storage_grid_size()
    writer = Recorder(ttnn, Graph(), Settings(None, None, (grid.x, grid.y)))
    fidelity = getattr(ttnn.MathFidelity, math_fidelity(device.architecture, options))
    settings = dataclasses.replace(
        writer.settings,
        core_grid=writer.CoreGrid(x=grid.x, y=grid.y),
        compute_kernel_config=compute_kernel_config(writer, fidelity, options.fp32_accumulation),
        device=device.handle,
        choices=device.choices,
    )
    return settings, {writer.text_of(made): made for made in (settings.core_grid, settings.compute_kernel_config)}


def _empty(ttnn: Any, handle: Any, spec: Spec) -> Any:
    """A tensor of that spec without data."""
    if spec.memory == "HOST":
        return spec.upload(ttnn, handle, torch.zeros(spec.shape))
    with dram_or_error():
        return ttnn.empty(
            spec.shape,
            dtype=getattr(ttnn, spec.dtype),
            layout=getattr(ttnn, f"{spec.layout}_LAYOUT"),
            device=handle,
            memory_config=ttnn.DRAM_MEMORY_CONFIG,
        )


class Tracer:
    """Lowers `graph`, placed and with layouts assigned, on the open device `handle`.

    find: the weight of that spec, of the parameters at these addresses, if it lies on the device; else None.
    """

    def __init__(
        self, graph: Graph, sides: Sides, ttnn: Any, handle: Any, settings: Settings, texts: dict[str, Any], find: Find
    ) -> None:
        self.source = graph
        self.sides = sides
        self.ttnn = ttnn
        self.graph = Graph()
        self.handle = handle
        self.recorder = Recorder(ttnn, self.graph, dataclasses.replace(settings, wants_block_sharding=[]))
        for text, value in {**texts, "device": handle}.items():
            self.recorder.note(value, text)
        self._empty = functools.partial(_empty, ttnn, handle)  # no method: a cycle would keep weights on the device
        self.weights = TracedWeights(self.graph, find, self._empty)
        self.known: dict[Node, Any] = {}  # graph node → Value, tuple of them, or program node on the host
        self.shards = Shards(self.recorder, self.known)
        self.result = Trace(self.graph, [], self.weights.uses, [], [], {}, [])
        # memory of the program → the memory that eager torch has for it; inputs are the caller's already
        inputs = (memory_of(node.meta.get("val")) for node in graph.find_nodes(op="placeholder"))
        self.owners: dict[int, int] = {memory: memory for memory in inputs if memory}

    def run(self) -> Trace:
        """The trace. Raises MemoryError where the DRAM is full."""
        remaining = {node: len(node.users) for node in self.source.nodes}
        self._make_placeholders()
        for node in self.source.nodes:
            before = last_node(self.graph)
            if node.op == "call_function":
                self.known[node] = self._lower(node)
                self.weights.settle(node, node in self.result.refused)
            elif node.op == "output":
                self.graph.output(self._outputs(node))
            self._annotate(before, node)
            for operand in node.all_input_nodes:
                remaining[operand] -= 1
                if not remaining[operand]:
                    self.shards.forget(operand)
        if not self.result.refused:
            drop_dead_calls(self.graph)
            prepare_weights(self.graph, self.result.weights, self.ttnn, self.handle)
        return self.result

    def _annotate(self, before: Node, source: Node) -> None:
        """Tell the new nodes after `before` which module they come from."""
        for node in nodes_after(before):
            node.meta["module"] = module_path(source)
            node.meta["source"] = source.name

    def _make_placeholders(self) -> None:
        """Inputs first, in the order of the graph, then weights in the order of use."""
        for node in self.source.find_nodes(op="placeholder"):
            readers = [user for user in node.users if not _crosses(user) and user.op != "call_module"]
            if any(not _is_left_out(user) for user in node.users) and (not is_parameter(node) or readers):
                placeholder = self.graph.placeholder(node.meta.get("name", node.name))
                placeholder.meta["val"] = node.meta.get("val")
                self.known[node] = placeholder
                self.result.inputs.append(node)
        for node in self.source.find_nodes(op="call_function", target=operators.to_device):
            if "state" in node.meta:
                self._make_state(node.meta["state"])
        for node in self.source.nodes:
            if is_call(node, operators.to_device) and self._is_weight(node.args[0]):
                self.known[node] = self.weights.add(node, node.args[0], node.meta["ttnn"])
            elif node.op in ("call_module", "get_attr") and any(not _crosses(user) for user in node.users):
                self.known[node] = self.weights.add(node, node, None)
        self.weights.allocate_all()

    def _make_state(self, state: StateUse) -> None:
        placeholder = self.graph.placeholder(f"{state.node.meta.get('name', state.node.name)}_on_device")
        placeholder.meta["ttnn"] = state.spec
        placeholder.meta["state"] = True
        try:
            state.tensor = self._empty(state.spec)
        except RuntimeError as error:
            self.result.refused[state.crossing] = ("refused", f"cache of {state.spec.shape}: {ttnn_reason(error)}")
        self.known[state.crossing] = Value(placeholder, state.tensor)
        self.result.states.append(state)

    def _is_weight(self, node: Node) -> bool:
        return is_parameter(node) or node.op in ("call_module", "get_attr")

    def _lower(self, node: Node) -> Any:
        if node in self.known:
            return self.known[node]
        if "result_of" in node.meta:
            self._settle(node.meta["result_of"], self.known[node.args[0]])
        if node.meta.get("left_out"):
            return None
        if node.target is operator.getitem and not isinstance(self.known[node.args[0]], Node):
            return self.known[node.args[0]][node.args[1]]
        if is_call(node, operators.to_device):
            return self._upload(node)
        if "kept_at" in node.meta:
            return self._kept(self.known[node.args[0]], node.meta["kept_as"])
        if is_call(node, operators.to_host):
            return self._download(self.known[node.args[0]], node.meta["val"].dtype)
        if self.sides.get(node) == "device":
            return self._on_device(node)
        return self.graph.node_copy(node, lambda operand: self.known[operand])

    def _kept(self, value: Value, dtype: str) -> Value:
        """A cache as later calls read it."""
        wanted = getattr(self.recorder, dtype)
        return value if value.dtype == wanted else self.recorder.typecast(value, wanted)

    def _settle(self, state: StateUse, value: Value) -> None:
        """Note which value a state ends as, if that is elsewhere than it began."""
        in_place = value.tensor.buffer_address() == state.tensor.buffer_address()
        state.result = None if in_place else value.node

    def _on_device(self, node: Node) -> Any:
        try:
            found = find_lowering(node.target)
            assert found is not None
            self.weights.allocate(node.all_input_nodes)
            return self.shards.lower(node, found.sharded, functools.partial(self._attempt, node, found))
        except MemoryError:  # of its weights
            if not self.result.refused:
                raise  # else the next trace needs less
        except Unsupported as error:
            self.result.refused[node] = ("refused" if isinstance(error, Refused) else "unsupported", str(error))
        except Exception as error:  # a fault of ours costs speed, never the compilation
            reason = f"its lowering failed: {type(error).__name__}: {ttnn_reason(error)}"
            log.warning("%s (%s): %s; it runs in eager torch", node.name, node.target, reason)
            self.result.refused[node] = ("unsupported", reason)
        return self._stand_in(node)

    def _attempt(self, node: Node, found: Lowering, value_of: Callable[[Node], Any]) -> Any:
        args, kwargs = device_arguments(node, value_of)
        before = last_node(self.graph)
        try:
            result = found.function(self.recorder, *args, **kwargs)
            _check_results(node, result)
            self._note_wanted(node)
            return result
        except Exception:
            erase_after(before)
            raise

    def _note_wanted(self, node: Node) -> None:
        wanted = self.recorder.settings.wants_block_sharding
        self.result.wants_block_sharding += [x for x in node.all_input_nodes if self.known[x] in wanted]
        wanted.clear()

    def _stand_in(self, node: Node) -> Any:
        """Empty tensors for a refused node, so that its users can be asked about as well."""

        def stand_in(value: torch.Tensor) -> Value:
            spec = Spec(tuple(value.shape), DEVICE_DTYPES.get(value.dtype, "bfloat16"), node.meta.get("layout", "TILE"))
            made = self.graph.call_function(_refused, ())
            made.meta["ttnn"] = spec
            return Value(made, self._empty(spec))

        value = node.meta["val"]
        return tuple(map(stand_in, value)) if isinstance(value, (tuple, list)) else stand_in(value)

    def _upload(self, node: Node) -> Value:
        source, spec = self.known[node.args[0]], node.meta["ttnn"]
        label = source.name
        value = node.args[0].meta["val"]
        if spec.dtype in ("int32", "uint32"):
            name = f"{source.name}_int32"
            source = self.graph.create_node("call_function", checked, (source, *_bounds(node, spec)), name=name)
        elif value.dtype == torch.float32 and spec.dtype == "bfloat16":
            # torch converts many times faster than from_torch does
            name = f"{source.name}_bfloat16"
            source = self.graph.create_node("call_function", as_bfloat16, (source,), name=name)
        example = torch.zeros(value.shape, dtype=torch.int32 if "int" in spec.dtype else value.dtype)
        crossing = spec.upload(self.recorder, self.handle, Value(source, example))
        crossing.node.meta.update(bytes=spec_bytes(spec), label=label)
        return crossing

    def _download(self, value: Value, dtype: torch.dtype) -> Node:
        target, args = self.ttnn.to_torch, (value.node,)
        node = self.graph.create_node("call_function", target, args, {"dtype": dtype}, name="to_torch")
        node.meta["path"] = "ttnn.to_torch"
        node.meta.update(bytes=spec_bytes(value.node.meta["ttnn"]), label=value.node.name)
        return node

    def _outputs(self, output: Node) -> tuple[Any, ...]:
        """What the caller gets: in memory as eager torch's."""

        def restrided_node(*args: Any) -> Node:
            return self.graph.create_node("call_function", restrided, args, name="output")

        def shared_nodes(values: list[Node], size: int, layouts: Any) -> list[Node]:
            made = self.graph.create_node("call_function", shared, (values, size, layouts), name="outputs")
            return [self.graph.call_function(operator.getitem, (made, index)) for index in range(len(values))]

        results = [self._result(value) for value in output.args[0]]
        made = arranged(results, output.meta["eager"], self.owners, restrided_node, shared_nodes)
        return (*made, *(state.result for state in self.result.states if state.result is not None))

    def _result(self, value: Any) -> Any:
        if not isinstance(value, Node):
            return value
        if "kept_at" in value.meta:
            self.result.kept.append((value.meta["kept_at"], self.known[value].node.meta["ttnn"]))
            return self.known[value].node
        result, fake = self.known[value], value.meta["val"]
        if not is_strided(fake):
            return result
        return Result(result, memory_of(fake), fake.stride(), bool(result.meta.get("weight")))


def _crosses(node: Node) -> bool:
    return is_call(node, operators.to_device)


def _is_left_out(node: Node) -> bool:
    """Whether the program has no call for a node: what it would do happens on the device, between calls."""
    return "state" in node.meta or bool(node.meta.get("left_out"))


def _refused() -> None:
    raise AssertionError("a program with a refused node is never run")


def _check_results(node: Node, result: Any) -> None:
    """A lowering whose result has another shape than eager torch's, or integers for floats, is refused."""
    expected = node.meta["val"]
    pairs = zip(expected, result, strict=True) if isinstance(expected, (tuple, list)) else [(expected, result)]
    for value, got in pairs:
        if got is not None and tuple(got.shape) != tuple(value.shape):
            raise Unsupported(f"TTNN gives the shape {tuple(got.shape)}, eager torch {tuple(value.shape)}")
        if got is not None and ("INT" in got.dtype.name) != (DEVICE_DTYPES.get(value.dtype) == "int32"):
            raise Unsupported(f"TTNN gives {got.dtype.name.lower()}, eager torch {value.dtype}")


def _bounds(node: Node, spec: Spec) -> tuple[int, int]:
    """What integers may cross: those of 32 bits, or the rows of the tables and caches that they pick from."""
    if spec.dtype == "int32":
        lengths = [shape_of(user.args[0])[2] for user in node.users if is_call(user, *operators.CACHE_WRITES)]
        return (0, min(lengths)) if lengths else INT32
    rows = [user.args[0].meta["val"].shape[0] for user in node.users if user.target is torch.ops.aten.embedding.default]
    return 0, min(rows, default=INT32[1])
