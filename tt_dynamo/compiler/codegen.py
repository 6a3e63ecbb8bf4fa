"""A program as Python, one line a call: what runs, what is dumped, and what a user can save and run alone.

A name is set to None at its last use, which frees its tensor. Objects of TTNN (grids, configurations) are made once,
above the function.
"""

import dataclasses
import itertools
import math
import operator
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Interpreter, Node
from torch.fx.node import map_aggregate
from torch.utils._pytree import tree_leaves

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import aten, function_name, target_name
from tt_dynamo.ir.helpers import HELPERS

CPU = torch.device("cpu")
Names = Mapping[Any, str]  # of nodes, and of the texts of expressions, where they have others than their own


@dataclasses.dataclass(frozen=True)
class Expression:
    """A Python expression in a program and the object that it makes; of one that was constructed, the keywords."""

    text: str
    value: Any = dataclasses.field(default=None, compare=False)
    keywords: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        return self.text


def program_source(graph: Graph) -> str:
    """The module text of a program graph: imports, shared objects, `def forward(device, inputs…, weights…)`."""
    return functions_source({"forward": graph})


def functions_source(functions: Mapping[str, Graph]) -> str:
    """The module text of several graphs, each a function that takes the device and its placeholders."""
    graphs = functions.values()
    shared = _shared_objects(graphs)
    targets = {node.target for graph in graphs for node in graph.nodes if node.op == "call_function"}
    helpers = [text for helper, text in HELPERS.items() if helper in targets]
    lines = ["import torch", "import ttnn", ""]
    lines += [line for text in helpers for line in ("", text)]
    lines += [f"{name} = {text}" for text, name in shared.items()]
    for graph in graphs:
        lines += _functions(graph)
    for function, graph in functions.items():
        parameters = ["device", *(node.name for node in graph.find_nodes(op="placeholder"))]
        lines += ["", "", f"def {function}(", *(f"    {name}," for name in parameters), "):"]
        lines += [f"    {line}" for line in _body(graph, shared)]
    imports = ["import operator"] if any(" = operator." in line for line in lines) else []
    return "\n".join(imports + lines) + "\n"


def _functions(graph: Graph) -> list[str]:
    """The functions that higher-order operators call, each once, behind those that it calls itself."""
    lines: list[str] = []
    for node in graph.nodes:
        arguments = node.target.arguments(node.args) if isinstance(node.target, operators.HostCall) else ()
        for body in (leaf for leaf in tree_leaves(arguments) if isinstance(leaf, GraphModule)):
            head = f"def {body.meta['name']}({', '.join(n.name for n in body.graph.find_nodes(op='placeholder'))}):"
            if head not in lines:
                lines += [*_functions(body.graph), "", "", head, *(f"    {line}" for line in _body(body.graph, {}))]
    return lines


def _body(graph: Graph, names: Names) -> list[str]:
    last_uses = Interpreter(torch.nn.Module(), graph=graph).user_to_last_uses
    lines: list[str] = []
    module = None
    for node in graph.nodes:
        if node.op == "output":
            results = node.args[0]
            lines.append(f"return {_text(results if isinstance(results, Node) else tuple(results), names)}")
        elif node.op != "placeholder":
            if meta.module.get(node, module) != module:
                module = meta.module(node)
                lines.append(f"# {module}" if module else "#")
            read = last_uses.get(node, [])  # for the last time; inputs and weights are the caller's and stay
            freed = "".join(f"{source.name} = " for source in read if source.op != "placeholder")
            if freed and node.op == "call_method" and node.target == "deallocate" and not node.users:
                lines.append(f"{freed}None")  # which is a third of what the call costs the host
                continue
            line = call_text(node, names)
            lines.append((f"{node.name} = {line}" if node.users else line) + (f"; {freed}None" if freed else ""))
    return lines or ["return ()"]


def call_text(node: Node, names: Names) -> str:
    """What a node computes, as one expression."""
    if node.target is operator.getitem:
        return f"{_text(node.args[0], names)}[{node.args[1]}]"
    if node.op == "get_attr":
        value = getattr(node.graph.owning_module, str(node.target))
        return f"torch.tensor({_text(value.tolist(), {})}, dtype={value.dtype}).reshape({list(value.shape)})"
    args, kwargs = node.args, node.kwargs
    if isinstance(node.target, operators.HostCall):
        args, kwargs = node.target.arguments(args)
    written = _as_method(node)
    if written is not None:
        name, args, kwargs = f"{_text(args[0], names)}.{written[0]}", *written[1:]
    else:
        name = "torch.where" if node.target in _WHERE else target_name(node)
    if node.op == "call_method":
        name, args = f"{_text(args[0], names)}.{node.target}", args[1:]
    return f"{name}({arguments_text(args, kwargs, names)})"


# Calls of torch on the host as one writes them, which PyTorch takes apart in half the time of `torch.ops`.
_METHODS = {
    aten.expand.default: "expand",
    aten.permute.default: "permute",
    aten.reshape.default: "reshape",
    aten.unsqueeze.default: "unsqueeze",
    aten.view.default: "view",
}
_WHERE = (aten.where.self, aten.where.Scalar)


def _as_method(node: Node) -> tuple[str, tuple[Any, ...], dict[str, Any]] | None:
    """The method of its first operand that a call of ATen is, with the other arguments, where one is listed."""
    if node.target in _METHODS and len(node.args) > 1 and not node.kwargs:
        return _METHODS[node.target], node.args[1:], {}
    cast = node.kwargs.keys() <= {"dtype", "device"} and node.kwargs.get("dtype") is not None
    if node.target is aten._to_copy.default and cast and node.kwargs.get("device", CPU) == CPU:
        return "to", (node.kwargs["dtype"],), {"copy": True}
    return None


def arguments_text(args: Iterable[Any], kwargs: Mapping[str, Any], names: Names) -> str:
    """The arguments of a call, as they stand between its brackets."""
    texts = [_text(argument, names) for argument in args]
    return ", ".join(texts + [f"{key}={_text(argument, names)}" for key, argument in kwargs.items()])


def _text(argument: Any, names: Names) -> str:
    """An argument as Python reads it: the `repr` of tuples, lists and slices of what `text` says."""

    def text(leaf: Any) -> str:
        if isinstance(leaf, Node):
            return names.get(leaf, leaf.name)
        if isinstance(leaf, Expression):
            return names.get(leaf.text, leaf.text)
        if isinstance(leaf, GraphModule):
            return str(leaf.meta["name"])
        if isinstance(leaf, (torch._ops.OpOverload, torch._ops.HigherOrderOperator)):
            return function_name(leaf)
        if isinstance(leaf, torch.device):
            return f"torch.device({str(leaf)!r})"
        return f'float("{leaf}")' if isinstance(leaf, float) and not math.isfinite(leaf) else repr(leaf)

    return repr(map_aggregate(argument, lambda leaf: Expression(text(leaf))))


def _shared_objects(graphs: Iterable[Graph]) -> dict[str, str]:
    """A name for every expression that constructs something, not of the device, in order of first use."""
    names: dict[str, str] = {}
    nodes = [node for graph in graphs for node in graph.nodes]
    taken = {node.name for node in nodes} | {"device", "forward", "torch", "ttnn"}
    for node in nodes:
        for argument in tree_leaves((node.args, node.kwargs)):
            text = argument.text if isinstance(argument, Expression) else ""
            if text.endswith(")") and text not in names and "(device" not in text:
                kind = text.split("(")[0].rpartition(".")[2].removeprefix("Wormhole")
                base = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
                numbered = (f"{base}_{index}" for index in itertools.count(1))
                names[text] = next(name for name in itertools.chain([base], numbered) if name not in taken)
                taken.add(names[text])
    return names
