"""Dynamic shapes: one graph, compiled anew for each concrete set of shapes that it meets.

TTNN programs hold their shapes, and Dynamo marks a size that changed as symbolic. A graph with symbolic sizes is
therefore kept as Dynamo gave it and specialized at the call, once for each combination of sizes. The same goes for
Python floats, which such a graph takes as tensors and reads by `item`. Sizes that only a run knows (`nonzero`, where
Dynamo is told to capture it) and those of nested tensors leave nothing to specialize: such a graph runs in eager torch.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from functorch.compile import make_boxed_func
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import ShapeEnv, free_unbacked_symbols

from tt_dynamo.capture.counters import count_in_tensors, counted, value_of
from tt_dynamo.ir.errors import FallbackError
from tt_dynamo.ir.graph import compute_nodes, copy_graph, values_of
from tt_dynamo.options import Options
from tt_dynamo.report.report import Fallback, GraphReport, emit

log = logging.getLogger(__name__)

Compile = Callable[[GraphModule, Sequence[Any]], Callable[..., Any]]


class Specializations:
    """A graph with symbolic sizes: a callable that compiles for the sizes of its arguments and remembers."""

    def __init__(self, module: GraphModule, compile_: Compile, options: Options) -> None:
        # Numbers that no size depends on are given as tensors: one program serves all their values.
        self._counted = counted(module)
        self._module = count_in_tensors(module) if self._counted else module
        self._compile = compile_
        self._warn_after = options.warn_after_shapes
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._lock = threading.RLock()
        results = self._module.graph.output_node().args[0]
        self._gives_number = [isinstance(value_of(result), torch.SymInt) for result in results]
        self._as_number = [bool(_reads(node)) for node in module.graph.find_nodes(op="placeholder")]

    def __call__(self, *args: Any) -> Any:
        given = [torch.tensor(arg) if i in self._counted else arg for i, arg in enumerate(args)]
        key = tuple(map(_signature, given, self._as_number))
        if key not in self._compiled:
            with self._lock:
                if key not in self._compiled:
                    self._compiled[key] = self._specialize(given)
        results = self._compiled[key](*given)
        return [
            result.item() if is_number and isinstance(result, torch.Tensor) else result
            for result, is_number in zip(results, self._gives_number, strict=True)
        ]

    def _specialize(self, args: Sequence[Any]) -> Callable[..., Any]:
        count = len(self._compiled) + 1
        if count > self._warn_after:
            log.warning(
                "compiling one graph for set of shapes number %d; each takes time and memory. Pad the inputs to fewer "
                'shapes, or raise options={"warn_after_shapes": ...}',
                count,
            )
        module = _concrete(self._module, args)
        return self._compile(module, _faked(args) if _makes_symbols(self._module) else list(args))


def _makes_symbols(module: GraphModule) -> bool:
    """Whether tracing makes symbols: for what is known only when the graph runs (`nonzero`, `item`), in the bodies of
    higher-order operators, and for nested tensors."""
    values = list(map(value_of, module.graph.nodes))
    return any(isinstance(node.target, torch._ops.HigherOrderOperator) for node in module.graph.nodes) or any(
        getattr(value, "is_nested", False) or free_unbacked_symbols(value) for value in values if value is not None
    )


def in_eager(graph: GraphModule, name: str, device: str, options: Options) -> Callable[..., Any] | None:
    """A graph with tensors whose sizes only a run knows, in eager torch as a whole; None for every other graph."""
    sizes = ((node, size) for node in graph.graph.nodes for value in values_of(node) for size in value.shape)
    sized = list(dict.fromkeys(node for node, size in sizes if isinstance(size, torch.SymInt)))
    unknown = [node for node in sized if node.op != "placeholder"] or sized
    if not unknown:
        return None
    reason = "its size depends on values; a graph with such sizes runs in eager torch"
    report_eager(unknown, reason, len(compute_nodes(graph.graph)), name, device, options)
    return make_boxed_func(graph.forward)


def report_eager(nodes: Sequence[Node], reason: str, count: int, name: str, device: str, options: Options) -> None:
    """Emit the report of `count` nodes that run in eager torch because of `nodes`. Raises FallbackError if none may."""
    fallbacks = [Fallback.of(node, "unsupported", reason) for node in nodes]
    if options.fallback == "error":
        raise FallbackError(f'{fallbacks[0]}; fallback="error" forbids it')
    emit(GraphReport(name, device, nodes=count, host_nodes=count, fallbacks=fallbacks, notes=options.notes))


def _faked(args: Sequence[Any]) -> list[Any]:
    """Fake tensors of the arguments' sizes, in a mode that has symbols for what only a run knows."""
    environment = ShapeEnv(allow_scalar_outputs=True, allow_dynamic_output_shape_ops=True)
    mode = FakeTensorMode(shape_env=environment)
    return [mode.from_tensor(a, static_shapes=True) if isinstance(a, torch.Tensor) else a for a in args]


def _reads(placeholder: Node) -> list[Node]:
    """The nodes that turn an input into a Python number."""
    return [user for user in placeholder.users if user.op == "call_method" and user.target == "item"]


def _signature(argument: Any, as_number: bool) -> Any:
    if isinstance(argument, torch.Tensor):
        if as_number:
            return argument.item(), argument.dtype
        return tuple(argument.shape), argument.stride(), argument.dtype, argument.requires_grad
    return argument


def _concrete(module: GraphModule, args: Sequence[Any]) -> GraphModule:
    """A copy of the graph whose symbolic sizes are the numbers of `args`."""
    graph, _ = copy_graph(module.graph)
    for node, argument in zip(graph.find_nodes(op="placeholder"), args, strict=True):
        if isinstance(argument, (int, float, bool)):
            node.replace_all_uses_with(argument)  # type: ignore[arg-type]
        for number in _reads(node):
            number.replace_all_uses_with(argument.item())
            graph.erase_node(number)
    for node in graph.nodes:
        node.meta.pop("unbacked_bindings", None)  # Dynamo's symbols, which the new trace does not know
    return GraphModule(module, graph)
