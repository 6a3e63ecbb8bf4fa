"""Lower a placed graph by tracing it: every TTNN call is made once, and what was made is the program.

Nodes on the device go through their lowerings, nodes on the host are copied, transfers become from_torch and to_torch.
A node that TTNN refuses is noted and traced on with an empty tensor, so that one trace finds every refusal.

Convolutions leave their results sharded in L1. A lowering that is not registered for sharded operands is given a copy
in DRAM, made once for all such readers. Where TTNN finds no room in L1, what lies there moves to DRAM, and its later
readers find it there.
"""

import contextlib
import dataclasses
import functools
import logging
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch.fx import Graph, Interpreter, Node
from torch.utils._pytree import tree_map_only

from tt_dynamo.compiler.configs import Configs
from tt_dynamo.compiler.eligible import bounds, check_results, has_block_floats
from tt_dynamo.compiler.fit import dram_or_error
from tt_dynamo.compiler.measure import zeros
from tt_dynamo.compiler.meshes.downloads import download_parts, placement_of
from tt_dynamo.compiler.recorder import Recorder, erase_after
from tt_dynamo.compiler.states import shares_buffer
from tt_dynamo.compiler.traced_weights import ATTENTIONS, is_weight, prepare_weights
from tt_dynamo.devices import Device
from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.errors import Refused, Unsupported
from tt_dynamo.ir.exact import to_bfloat16
from tt_dynamo.ir.graph import (
    Sides,
    device_arguments,
    is_call,
    is_parameter,
    module_path,
    parameter_modules,
)
from tt_dynamo.ir.helpers import checked
from tt_dynamo.ir.spec import DEVICE_DTYPES, Interleaved, Spec, Value, evaluate, spec_bytes
from tt_dynamo.ir.torch_internals import last_node, nodes_after
from tt_dynamo.ir.ttnn_internals import lacks_room, ttnn_reason
from tt_dynamo.ir.uses import Settings, StateUse, WeightUse
from tt_dynamo.lowering import find as find_lowering
from tt_dynamo.lowering.memory import assigned_dtype, in_dram, is_sharded, lies_in_l1
from tt_dynamo.lowering.registry import Lowering
from tt_dynamo.options import OptionError
from tt_dynamo.passes.place.deallocations import drop_dead_calls
from tt_dynamo.passes.place.streams import EXITS, reads_l1
from tt_dynamo.runtime.weights import WeightStore

log = logging.getLogger(__name__)


class Trace:
    """The program of `graph`, placed and with layouts assigned, on the open `device`.

    graph: the program's. inputs: the placeholders of the placed graph that it takes as they are. values: what stands in
    for its states and weights, by their placeholders. kept: the outputs that stay on the device, by position. refused:
    the kind and reason, by node. wants_block_sharding: nodes whose results a reader had to shard anew. left_l1: nodes
    that could not take values where in L1 they were assigned. refused_dtypes: why nodes could not take block floats.
    """

    def __init__(
        self,
        graph: Graph,
        sides: Sides,
        ttnn: Any,
        device: Device,
        recorder: Recorder,
        settings_of: Callable[[Node], Settings],
    ) -> None:
        self._source, self._sides, self._settings_of = graph, sides, settings_of
        self._ttnn, self._handle = ttnn, device.handle
        self.mesh = device.shape
        self._find_weight = device.resource(WeightStore).find
        self.graph = Graph()
        self.inputs: list[Node] = []
        self.values: dict[Node, Value] = {}
        self.kept: list[tuple[int, Spec]] = []
        self.refused: dict[Node, tuple[str, str]] = {}
        self.wants_block_sharding: list[Node] = []
        self.left_l1: list[Node] = []
        self.refused_dtypes: dict[Node, str] = {}
        self._recorder = recorder.into(self.graph)
        self._configs: Configs = recorder.settings.configs
        self._configs.ttnn = self._recorder
        self._known: dict[Node, Any] = {}  # graph node → Value, tuple of them, or program node on the host
        self._kept: list[Value] = []
        self._weights: set[Node] = set()  # those of them that are weights on the device
        self._interleaved: dict[Node, Value] = {}  # copies in DRAM of those of them that are sharded

    @property
    def states(self) -> list[StateUse]:
        return [meta.state(node) for node in self.graph.find_nodes(op="placeholder") if node in meta.state]

    @property
    def weights(self) -> list[WeightUse]:
        return [meta.weight(node) for node in self.graph.find_nodes(op="placeholder") if node in meta.weight]

    def arguments(self) -> list[Any]:
        """Those of a run that computes nothing: zeros for what comes from the host."""
        nodes = self.graph.find_nodes(op="placeholder")
        return [self.values[node].tensor if node in self.values else zeros(node.meta["val"]) for node in nodes]

    def close(self) -> None:
        """Free what stands in for states and weights."""
        self.values.clear()

    def run(self) -> "Trace":
        """Trace the graph; gives itself. Raises MemoryError where the DRAM is full, OptionError for a strict config."""
        self._configs.begin()
        last_uses = Interpreter(torch.nn.Module(), graph=self._source).user_to_last_uses
        self._make_placeholders()
        for node in self._source.nodes:
            before = last_node(self.graph)
            self._configs.enter(module_path(node), node.name, parameter_modules(node))
            if node.op == "call_function":
                self._recorder.settings = self._settings_of(node)
                self._known[node] = self._lower(node)
            elif node.op == "output":
                self.graph.output(self._outputs(node))
            for made in nodes_after(before):
                meta.module.set(made, module_path(node))
                meta.source.set(made, node.name)
            for operand in last_uses.get(node, []):
                for values in (self._known, self._interleaved):  # frees their tensors, as the program will
                    values.pop(operand, None)
        if not self.refused:
            drop_dead_calls(self.graph)
            prepare_weights(self.graph, self.values, self._ttnn, self._handle)
        self._known.clear()
        self._configs.enter("", "")
        return self

    def _make_placeholders(self) -> None:
        """Inputs first, in the order of the graph, then states, then weights, in the order of use."""
        for node in self._source.find_nodes(op="placeholder"):
            elsewhere = {operators.state_read, operators.state_write}
            if is_parameter(node):
                elsewhere.add(operators.to_device)
            if any(user.op != "call_module" and user.target not in elsewhere for user in node.users):
                self._known[node] = self._placeholder(node, None)
                self.inputs.append(node)
        for read in self._source.find_nodes(op="call_function", target=operators.state_read):
            node, spec = read.args[0], meta.spec(read)
            written = any(is_call(user, operators.state_write) for user in node.users)
            state = self._known[read] = self._placeholder(node, spec, "_on_device")
            state.tensor = self._empty(spec)
            meta.state.set(state.node, StateUse(node, spec, meta.held.get(node, False), written))
        for node in filter(is_weight, self._source.nodes):
            goes_up = is_call(node, operators.to_device)
            constant, used = (node.args[0], meta.spec(node)) if goes_up else (node, None)
            weight = self._known[node] = self._placeholder(constant, used)
            if goes_up:
                self._weights.add(node)
            meta.weight.set(weight.node if goes_up else weight, WeightUse(constant, used))
        try:  # all weights at first, as a call of the program finds them; else each for the first node that reads it
            self._allocate(self._known)
        except (MemoryError, Refused):
            self._free(self._known)

    def _placeholder(self, node: Node, spec: Spec | None, suffix: str = "") -> Any:
        """What stands for an input: a value without a tensor, or for one that the host reads its placeholder."""
        placeholder = self.graph.placeholder(meta.name.get(node, node.name) + suffix)
        if spec is None:
            placeholder.meta["val"] = node.meta.get("val")
            return placeholder
        if spec.memory != "HOST":
            meta.spec.set(placeholder, spec)
        self.values[placeholder] = Value(placeholder, None)
        return self.values[placeholder]

    def _allocate(self, nodes: Iterable[Node]) -> None:
        """Give the weights among these their tensors. Raises Refused as TTNN does, MemoryError where DRAM is full."""
        for node in filter(self._weights.__contains__, nodes):
            if self._known[node].tensor is None:
                spec, constant = meta.spec(node), node.args[0]
                parameters = filter(is_parameter, (constant, *constant.all_input_nodes))
                pointers = [meta.pointer.get(parameter, 0) for parameter in parameters]
                is_mask = any(is_call(user, *ATTENTIONS) for user in node.users)  # whose padding is filled in place
                try:
                    tensor = not is_mask and self._find_weight(spec, pointers)
                    self._known[node].tensor = tensor or self._empty(spec)
                except RuntimeError as error:
                    raise Refused(f"weight of {spec.shape}: {ttnn_reason(error)}") from None

    def _free(self, nodes: Iterable[Node]) -> None:
        for node in filter(self._weights.__contains__, nodes):
            self._known[node].tensor = None

    def _empty(self, spec: Spec) -> Any:
        """A tensor of that spec without data."""
        ttnn, handle = self._ttnn, self._handle
        if spec.memory == "HOST":
            zero = torch.zeros(spec.shape)
            return spec.upload(ttnn, handle, [zero] * math.prod(self.mesh) if spec.each else zero)
        dtype, layout = getattr(ttnn, spec.dtype), getattr(ttnn, f"{spec.layout}_LAYOUT")
        where = {"device": handle, "memory_config": evaluate(spec.memory_config, ttnn, handle, None)}
        with dram_or_error():
            return ttnn.empty(spec.shape, dtype=dtype, layout=layout, **where)

    def _lower(self, node: Node) -> Any:
        if node in self._known:  # a weight or a state
            return self._known[node]
        if is_call(node, operators.partition) and self._sides.get(node) == "host":
            return self._known[node.args[0]]  # is cut as it goes up
        transfer = self.TRANSFERS.get(node.target)
        if transfer is not None:
            return transfer(self, node)
        return self._on_device(node) if self._sides.get(node) == "device" else self._on_host(node)

    def _on_host(self, node: Node) -> Node:
        return self.graph.node_copy(node, self._known.__getitem__)

    def _on_device(self, node: Node) -> Any:
        try:
            found = find_lowering(node.target)
            assert found is not None
            self._allocate(node.all_input_nodes)
            return self._make_calls(node, found)
        except MemoryError:  # of its weights
            if not self.refused:
                raise  # else the next trace needs less
        except Unsupported as error:
            if self._configs.refusal:
                raise OptionError(self._configs.refusal) from None
            self.refused[node] = ("refused" if isinstance(error, Refused) else "unsupported", str(error))
            if has_block_floats(node):
                self.refused_dtypes[node] = str(error)
        except Exception as error:  # a fault of ours costs speed, never the compilation
            reason = f"its lowering failed: {type(error).__name__}: {ttnn_reason(error)}"
            log.warning("%s (%s): %s; it runs in eager torch", node.name, node.target, reason)
            self.refused[node] = ("unsupported", reason)
        self._free(node.all_input_nodes)  # what runs on the host needs none; other readers allocate them again
        return tree_map_only(torch.Tensor, functools.partial(self._stand_in, node), node.meta["val"])

    def _stand_in(self, node: Node, value: torch.Tensor) -> Value:
        """An empty tensor for what a refused node gives, so that its users can be asked about as well."""
        spec = Spec(tuple(value.shape), DEVICE_DTYPES.get(value.dtype, "bfloat16"), meta.layout.get(node, "TILE"))
        made = self.graph.placeholder(node.name)  # of a program that is never run
        meta.spec.set(made, spec)
        return Value(made, self._empty(spec))

    def _make_calls(self, node: Node, found: Lowering) -> Any:
        """What a lowering gives for operands as they lie, else with more room in L1, else interleaved.

        Interleaved operands leave L1 before anything else does, which costs nothing but their other readers' shards.
        Raises the last refusal.
        """
        operands = node.all_input_nodes
        others = [other for other in self._known if other not in operands]
        assigned = [operand for operand in operands if operand in meta.memory]
        if node in meta.memory or any(reads_l1(node, operand) for operand in assigned):
            try:
                self._recorder.memory = meta.memory.get(node, None)
                return self._attempt(node, found, self._known.__getitem__)
            except Refused as error:
                log.debug("%s finds no place in L1: %s", node.name, error)
                if not is_call(node, *EXITS):  # who may as well be given a copy, as others are
                    if has_block_floats(node) and not lacks_room(error):
                        self.refused_dtypes[node] = str(error)
                    self.left_l1.append(node)
            finally:
                self._recorder.memory = None
        elif found.sharded and not assigned and any(is_sharded(self._known[operand]) for operand in operands):
            with contextlib.suppress(Refused):
                return self._with_room(node, found, self._known.__getitem__, others)
        return self._with_room(node, found, self._in_dram, operands, others)

    def _with_room(self, node: Node, found: Lowering, value_of: Callable[[Node], Any], *leaving: list[Node]) -> Any:
        """What a lowering gives once enough of these groups has left L1."""
        while True:
            try:
                return self._attempt(node, found, value_of)
            except Refused as error:
                if not lacks_room(error) or not any(map(self._leave, leaving)):
                    self.left_l1 += [x for x in self._known if isinstance(meta.memory.get(x, None), Interleaved)]
                    raise

    def _leave(self, nodes: list[Node]) -> bool:
        """Move what of these lies in L1 to DRAM; False where nothing does."""
        in_l1 = [node for node in nodes if lies_in_l1(self._known[node])]
        for node in in_l1:
            self._known[node] = self._in_dram(node, lies_in_l1)
        self.left_l1 += [node for node in in_l1 if node in meta.memory]
        return bool(in_l1)

    def _in_dram(self, node: Node, moves: Callable[[Any], bool] = is_sharded) -> Any:
        """The value of a node, in DRAM where it is sharded, or whatever `moves`."""
        value = self._known[node]
        if moves(value) and node not in self._interleaved:
            self._interleaved[node] = in_dram(self._recorder, value)
        return self._interleaved.get(node, value)

    def _attempt(self, node: Node, found: Lowering, value_of: Callable[[Node], Any]) -> Any:
        args, kwargs = device_arguments(node, value_of)
        before, wanted = last_node(self.graph), self._recorder.settings.wants_block_sharding
        try:
            self._recorder.dtype = meta.dtype.get(node, None)
            self._recorder.weight_dtype = meta.weight_dtype.get(node, None)
            result = found.function(self._recorder, *args, **kwargs)
            if has_block_floats(node):
                result = tree_map_only(Value, self._in_assigned_dtype, result)
            check_results(node, result)
            self.wants_block_sharding += [x for x in node.all_input_nodes if self._known[x] in wanted]
            return result
        except Exception:
            erase_after(before)
            raise
        finally:
            wanted.clear()
            self._recorder.dtype = self._recorder.weight_dtype = None

    def _in_assigned_dtype(self, result: Value) -> Value:
        """A result in the dtype that it is to have; what is made of block floats is bfloat16 unless assigned one."""
        wanted = assigned_dtype(self._recorder, result).get("dtype")
        return result if wanted is None else self._recorder.typecast(result, wanted)  # type: ignore[no-any-return]

    def _upload(self, node: Node) -> Value:
        source, spec, whole = self._known[node.args[0]], meta.spec(node), node.args[0]
        while is_call(whole, operators.partition):
            whole = whole.args[0]
        label, value = source.name, whole.meta["val"]
        if spec.dtype in ("int32", "uint32"):
            source = self.graph.call_function(checked, (source, *bounds(node, spec)), name=f"{label}_int32")
        elif value.dtype == torch.float32 and spec.dtype == "bfloat16":  # many times faster than from_torch does it
            source = self.graph.call_function(to_bfloat16(whole), (source,), name=f"{label}_bfloat16")
        example = torch.zeros(value.shape, dtype=torch.int32 if "int" in spec.dtype else value.dtype)
        crossing: Value = spec.upload(self._recorder, self._handle, Value(source, example))
        meta.transferred.set(crossing.node, spec_bytes(spec))
        meta.label.set(crossing.node, label)
        return crossing

    def _download(self, node: Node) -> Node:
        source, dtype = self._known[node.args[0]].node, node.meta["val"].dtype
        if math.prod(self.mesh) == 1:
            return self._to_torch(source, source, dtype)
        given = source, placement_of(node.args[0], self.mesh), self.mesh
        return download_parts(self.graph, self._ttnn, *given, lambda part: self._to_torch(part, source, dtype))

    def _to_torch(self, tensor: Node, source: Node, dtype: torch.dtype) -> Node:
        made = self.graph.call_function(self._ttnn.to_torch, (tensor,), {"dtype": dtype}, name="to_torch")
        meta.path.set(made, "ttnn.to_torch")
        meta.transferred.set(made, spec_bytes(meta.spec(source)))
        meta.label.set(made, source.name)
        return made

    def _join(self, node: Node) -> Value:
        return self._in_dram(node.args[0], lies_in_l1)

    def _pick(self, node: Node) -> Any:
        results = self._known[node.args[0]]
        return self._on_host(node) if isinstance(results, Node) else results[node.args[1]]

    def _keep(self, node: Node) -> Value:
        """A result as later calls read it."""
        value, dtype = self._in_dram(node.args[0], lies_in_l1), getattr(self._recorder, node.args[1])
        if value.dtype != dtype:
            value = self._recorder.typecast(value, dtype)
        elif shares_buffer(value, [*self.values.values(), *self._kept]):  # a later call may write there in place
            value = self._recorder.clone(value)
        if is_call(node.args[0], operators.join):
            spec = dataclasses.replace(meta.spec(value.node), placement=placement_of(node.args[0], self.mesh))
            meta.spec.set(value.node, spec)
        self._kept.append(value)
        return value

    def _write_state(self, node: Node) -> None:
        """Note which value a state ends as, if that is elsewhere than it began."""
        placeholder = next(p for p in self.values if p in meta.state and meta.state(p).node is node.args[0])
        began, end = self.values[placeholder].tensor, self._in_dram(node.args[1], lies_in_l1)
        if shares_buffer(end, self._kept):
            end = self._recorder.clone(end)
        self._kept.append(end)
        if end.tensor.buffer_address() != began.buffer_address():
            meta.state(placeholder).result = end.node

    TRANSFERS: ClassVar[dict[Any, Callable[..., Any]]] = {
        operators.to_device: _upload,
        operators.to_host: _download,
        operators.join: _join,
        operators.keep: _keep,
        operators.state_write: _write_state,
        operator.getitem: _pick,
    }

    def _outputs(self, output: Node) -> tuple[Any, ...]:
        """What the caller gets, and the states that end elsewhere than they began."""
        results = [self._known[value] if isinstance(value, Node) else value for value in output.args[0]]
        for position, result in enumerate(results):
            if isinstance(result, Value):  # it stays on the device
                self.kept.append((position, meta.spec(result.node)))
                results[position] = result.node
        return (*results, *(state.result for state in self.states if state.result is not None))
