"""Dynamic shapes: one graph, compiled anew for each concrete set of shapes that it meets.

TTNN programs hold their shapes, and Dynamo marks a size that changed as symbolic. A graph with symbolic sizes is
therefore kept as Dynamo gave it and specialized at the call, once for each combination of sizes. The same goes for
Python floats, which such a graph takes as tensors and reads by `item`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from tt_dynamo.options import Options

log = logging.getLogger(__name__)

Compile = Callable[[GraphModule, Sequence[Any]], Callable[..., Any]]


class Specializations:
    """A graph with symbolic sizes: a callable that compiles for the sizes of its arguments and remembers."""

    def __init__(self, module: GraphModule, compile_: Compile, options: Options) -> None:
        self._module = module
        self._compile = compile_
        self._warn_after = options.warn_after_shapes
        self._compiled: dict[Any, Callable[..., Any]] = {}
        self._lock = threading.RLock()
        self._as_number = [bool(_reads(node)) for node in module.graph.find_nodes(op="placeholder")]

    def __call__(self, *args: Any) -> Any:
        key = tuple(map(_signature, args, self._as_number))
        compiled = self._compiled.get(key)
        if compiled is None:
            with self._lock:
                compiled = self._compiled.get(key)
                if compiled is None:
                    compiled = self._compiled[key] = self._specialize(args)
        return compiled(*args)

    def _specialize(self, args: Sequence[Any]) -> Callable[..., Any]:
        count = len(self._compiled) + 1
        if count > self._warn_after:
            log.warning(
                "compiling one graph for set of shapes number %d; each takes time and memory. Pad the inputs to fewer "
                'shapes, or raise options={"warn_after_shapes": ...}',
                count,
            )
        module = _concrete(self._module, args)
        return self._compile(module, list(args))


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
    graph = torch.fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    for node, argument in zip(graph.find_nodes(op="placeholder"), args, strict=True):
        if isinstance(argument, (int, float, bool)):
            node.replace_all_uses_with(argument)  # type: ignore[arg-type]
        for number in _reads(node):
            number.replace_all_uses_with(argument.item())
            graph.erase_node(number)
    return GraphModule(module, graph)
