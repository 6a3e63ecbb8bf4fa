"""Dynamic shapes: one graph, compiled anew for each concrete set of shapes that it meets.

TTNN programs hold their shapes, so a graph with symbolic sizes is kept as Dynamo gave it and specialized at the call.
The same goes for Python floats, which such a graph takes as tensors and reads by `item`. Integers that a graph only
counts with, as a sliding cache its tokens, become tensors: one program serves them all. Sizes that only a run knows
(`nonzero`) and those of nested tensors leave nothing to specialize: such a graph runs in eager torch.
"""

import logging
import operator
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from functorch.compile import make_boxed_func
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import ShapeEnv, free_symbols, free_unbacked_symbols, statically_known_true

from tt_dynamo.capture.buckets import Bucket, Buckets
from tt_dynamo.ir.errors import FallbackError, LengthDependent
from tt_dynamo.ir.graph import compute_nodes, copy_graph, values_of
from tt_dynamo.options import Options
from tt_dynamo.report.report import Fallback, GraphReport, emit

log = logging.getLogger(__name__)

Compile = Callable[[GraphModule, Sequence[Any], Sequence[str]], Callable[..., Any]]
# Of a graph of a bucket with its inputs, whose last is the length, and the same of a row less: what is called, and how
# many rows a prompt must have at least.
Fit = Callable[[GraphModule, Sequence[Any], GraphModule, Sequence[Any]], tuple[Callable[..., Any], int]]


# Arithmetic with numbers, and how it is written so that it writes into no tensor that stands for one.
ARITHMETIC: dict[Any, Any] = {function: function for function in (operator.add, operator.sub, operator.mul)}
ARITHMETIC |= {operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul}
WITH_TENSORS = {*ARITHMETIC, torch.add, torch.sub, torch.mul}


class Specializations:
    """A graph with symbolic sizes: a callable that compiles for the sizes of its arguments and remembers."""

    def __init__(self, module: GraphModule, compile_: Compile, fit: Fit, options: Options) -> None:
        self._counted = _counted_inputs(module)
        self._module = _count_in_tensors(module) if self._counted else module
        self._compile = compile_
        self._warn_after = options.warn_after_shapes
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._lock = threading.RLock()
        self._fit = fit
        lengths = options.prompt_buckets
        self._buckets = None if lengths is None else Buckets(self._module, lengths, self._in_bucket)
        results = self._module.graph.output_node().args[0]
        self._gives_number = [isinstance(_value(result), torch.SymInt) for result in results]
        self._as_number = [bool(_reads(node)) for node in module.graph.find_nodes(op="placeholder")]

    def __call__(self, *args: Any) -> Any:
        given = [torch.tensor(arg) if i in self._counted else arg for i, arg in enumerate(args)]
        results = None
        if self._buckets is not None:
            with self._lock:
                results = self._buckets(given, self._key)
        if results is None:
            key = self._key(given)
            if key not in self._compiled:
                with self._lock:
                    if key not in self._compiled:
                        self._compiled[key] = self._specialize(given)
            results = self._compiled[key](*given)
        return [
            result.item() if is_number and isinstance(result, torch.Tensor) else result
            for result, is_number in zip(results, self._gives_number, strict=True)
        ]

    def _key(self, args: Sequence[Any]) -> Any:
        return tuple(map(_signature, args, self._as_number))

    def _in_bucket(self, args: Sequence[Any], shorter: Sequence[Any], rows: int) -> Bucket:
        """The program of a bucket. Raises LengthDependent where padding might change the prompt's results."""
        if _makes_symbols(self._module):
            raise LengthDependent("sizes that only a run knows depend on padding")
        module, other = _concrete(self._module, args), _concrete(self._module, shorter)
        with module.graph.inserting_after(module.graph.find_nodes(op="placeholder")[-1]):
            module.graph.placeholder("prompt_length")
        module.recompile()
        return Bucket(*self._fit(module, [*args, torch.tensor(rows)], other, shorter), rows)

    def _specialize(self, args: Sequence[Any]) -> Callable[..., Any]:
        count = len(self._compiled) + 1
        if count > self._warn_after:
            log.warning(
                "compiling one graph for set of shapes number %d; each takes time and memory. Pad the inputs to fewer "
                'shapes, or raise options={"warn_after_shapes": ...}',
                count,
            )
        module = _concrete(self._module, args)
        reason = self._buckets.reason if self._buckets is not None else ""
        notes = [f"prompt_buckets: compiled for one length, since {reason}"] if reason else []
        return self._compile(module, _faked(args) if _makes_symbols(self._module) else list(args), notes)


def _makes_symbols(module: GraphModule) -> bool:
    """Whether tracing makes symbols: for what only a run knows, in bodies of operators, and for nested tensors."""
    values = list(map(_value, module.graph.nodes))
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
    mode = FakeTensorMode(shape_env=ShapeEnv(allow_scalar_outputs=True, allow_dynamic_output_shape_ops=True))
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


def _counted_inputs(module: GraphModule) -> frozenset[int]:
    """The positions of the inputs that are numbers which a graph counts with, and that no size depends on."""
    placeholders = module.graph.find_nodes(op="placeholder")
    tensors = [_value(node) for node in placeholders if _is_tensor(node)]
    sizes = free_symbols([[*tensor.shape, *tensor.stride()] for tensor in tensors])  # where one begins is none
    return frozenset(
        index
        for index, node in enumerate(placeholders)
        if isinstance(_value(node), torch.SymInt) and not sizes & free_symbols(_value(node)) and _is_counted(node)
    )


def _value(node: Any) -> Any:
    """What Dynamo says that a node gives; a number is itself."""
    return node.meta.get("val", node.meta.get("example_value")) if isinstance(node, Node) else node


def _is_tensor(node: Node) -> bool:
    return isinstance(_value(node), torch.Tensor)


def _is_counted(number: Node) -> bool:
    """Whether all that reads a number is arithmetic, of tensors with it or of integers that end as results."""
    numbers = [number]
    for node in numbers:
        for user in node.users:
            if _is_tensor(user):
                if user.target not in WITH_TENSORS or user.kwargs:
                    return False
            elif user.op != "output" and user not in numbers:
                is_integer = isinstance(_value(user), (int, torch.SymInt))
                if not is_integer or (user.target not in ARITHMETIC and _larger(user) is None):
                    return False
                numbers.append(user)
    return True


def _larger(node: Node) -> Any:
    """The operand that the larger of two numbers always is, as guards have it: a cache is full, or not; else None."""
    if node.target is not torch.sym_max:
        return None
    first, second = map(_value, node.args)
    if statically_known_true(first >= second):
        return node.args[0]
    return node.args[1] if statically_known_true(second >= first) else None


def _count_in_tensors(module: GraphModule) -> GraphModule:
    """A copy of the graph that computes the same where counted numbers are given as tensors."""
    graph, originals = copy_graph(module.graph)
    for node in originals:
        larger = _larger(node)
        if larger is not None:
            node.replace_all_uses_with(larger)
            graph.erase_node(node)
        elif not _is_tensor(node):
            node.target = ARITHMETIC.get(node.target, node.target)
    return GraphModule(module, graph)
