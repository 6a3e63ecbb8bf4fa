"""A program as Python: what runs, what is dumped, and what a user can save and run alone.

One line a call, written as one would write it by hand; each name is set to None at its last use, which frees the tensor
it held. Objects of TTNN that calls share (grids, configurations) are made once, above the function.
"""

from __future__ import annotations

import operator
import re
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.utils._pytree import tree_leaves

from tt_dynamo.compiler.recorder import Expression
from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import function_name, target_name
from tt_dynamo.ir.helpers import HELPERS


def program_source(graph: Graph) -> str:
    """The module text of a program graph: imports, shared objects, `def forward(device, inputs…, weights…)`."""
    shared = _shared_objects(graph)
    lines = ["import torch", "import ttnn", ""]
    for helper, text in HELPERS.items():
        if graph.find_nodes(op="call_function", target=helper):
            lines += ["", text]
    lines += [f"{name} = {text}" for text, name in shared.items()]
    lines += _functions(graph)
    parameters = ["device", *(node.name for node in graph.find_nodes(op="placeholder"))]
    lines += ["", "", "def forward(", *(f"    {name}," for name in parameters), "):"]
    lines += [f"    {line}" for line in _body(graph, shared)]
    imports = ["import operator"] if any(" = operator." in line for line in lines) else []
    return "\n".join(imports + lines) + "\n"


def _functions(graph: Graph) -> list[str]:
    """The functions that higher-order operators call, each once, those that it calls itself before it."""
    lines: list[str] = []
    for node in graph.nodes:
        for body in _bodies(node):
            head = f"def {body.meta['name']}({', '.join(n.name for n in body.graph.find_nodes(op='placeholder'))}):"
            if head not in lines:
                lines += [*_functions(body.graph), "", "", head, *(f"    {line}" for line in _body(body.graph, {}))]
    return lines


def _bodies(node: Node) -> list[GraphModule]:
    if not isinstance(node.target, operators.HostCall):
        return []
    return [x for x in tree_leaves(node.target.arguments(node.args)) if isinstance(x, GraphModule)]


def _body(graph: Graph, shared: dict[str, str]) -> list[str]:
    last_use = _last_uses(graph)
    lines: list[str] = []
    module = None
    for node in graph.nodes:
        if node.op == "output":
            results = node.args[0]
            lines.append(f"return {_text(results if isinstance(results, Node) else tuple(results), shared)}")
            continue
        if node.op == "placeholder":
            continue
        if node.meta.get("module", module) != module:
            module = node.meta["module"]
            lines.append(f"# {module}" if module else "#")
        freed = [name.name for name in last_use.get(node, [])]
        line = _call(node, shared)
        line = line if not node.users else f"{node.name} = {line}"
        lines.append(line + (f"; {' = '.join(freed)} = None" if freed else ""))
    return lines or ["return ()"]


def _last_uses(graph: Graph) -> dict[Node, list[Node]]:
    """For each node, the values that it is the last to read. Inputs and weights are the caller's and stay."""
    seen: set[Node] = set()
    last: dict[Node, list[Node]] = {}
    for node in reversed(graph.nodes):
        for source in dict.fromkeys(node.all_input_nodes):
            if source not in seen and source.op != "placeholder":
                seen.add(source)
                if node.op != "output":
                    last.setdefault(node, []).append(source)
    return last


def _call(node: Node, shared: dict[str, str]) -> str:
    if node.target is operator.getitem:
        return f"{_text(node.args[0], shared)}[{node.args[1]}]"
    if node.op == "get_attr":
        value = getattr(node.graph.owning_module, str(node.target))
        return f"torch.tensor({_text(value.tolist(), {})}, dtype={value.dtype}).reshape({list(value.shape)})"
    args, kwargs = node.args, node.kwargs
    if isinstance(node.target, operators.HostCall):
        args, kwargs = node.target.arguments(args)
    arguments = [_text(argument, shared) for argument in args]
    arguments += [f"{key}={_text(argument, shared)}" for key, argument in kwargs.items()]
    if node.op == "call_method":
        return f"{arguments[0]}.{node.target}({', '.join(arguments[1:])})"
    return f"{target_name(node)}({', '.join(arguments)})"


def inline_call(node: Node, names: dict[Node, str]) -> str:
    """A call as one expression, with its shared objects in place and its operands under the given names."""
    known = {operand: Expression(name, None) for operand, name in names.items()}
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
    texts = [_text(argument, {}) for argument in args]
    texts += [f"{key}={_text(argument, {})}" for key, argument in kwargs.items()]
    return f"{target_name(node)}({', '.join(texts)})"


def _text(argument: Any, shared: dict[str, str]) -> str:
    if isinstance(argument, Node):
        return argument.name
    if isinstance(argument, Expression):
        return shared.get(argument.text, argument.text)
    if isinstance(argument, tuple):
        items = [_text(item, shared) for item in argument]
        return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
    if isinstance(argument, list):
        return f"[{', '.join(_text(item, shared) for item in argument)}]"
    if isinstance(argument, slice):
        return f"slice({argument.start}, {argument.stop}, {argument.step})"
    if isinstance(argument, GraphModule):
        return str(argument.meta["name"])
    if isinstance(argument, (torch._ops.OpOverload, torch._ops.HigherOrderOperator)):
        return function_name(argument)
    if isinstance(argument, torch.device):
        return f"torch.device({str(argument)!r})"
    if isinstance(argument, float) and argument != argument or argument in (float("inf"), float("-inf")):
        return f'float("{argument}")'
    return repr(argument)


def _shared_objects(graph: Graph) -> dict[str, str]:
    """A name for every expression that constructs something, in order of first use."""
    names: dict[str, str] = {}
    taken = {node.name for node in graph.nodes} | {"device", "forward", "torch", "ttnn"}
    for node in graph.nodes:
        for argument in tree_leaves((node.args, node.kwargs)):
            text = argument.text if isinstance(argument, Expression) else ""
            if text.endswith(")") and not text.startswith("float(") and text not in names:
                kind = text.split("(")[0].rpartition(".")[2].removeprefix("Wormhole")
                base = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
                name, index = base, 1
                while name in taken:
                    name, index = f"{base}_{index}", index + 1
                taken.add(name)
                names[text] = name
    return names
