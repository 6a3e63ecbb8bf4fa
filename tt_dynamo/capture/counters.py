"""Python numbers that a graph counts with, and that no size depends on: the tokens that a sliding cache has seen.

Before   forward(s, x):  return x + s, s + 1
After    forward(s, x):  return x + s, of which s is a tensor;   s + 1 is computed beside the graph

Such a number would otherwise make a program of its own for each of its values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

ARITHMETIC = frozenset({operator.add, operator.sub, operator.mul, operator.iadd, operator.isub, operator.imul})
WITH_TENSORS = ARITHMETIC | {torch.add, torch.sub, torch.mul}


def counted(module: GraphModule) -> frozenset[int]:
    """The positions of the inputs that are such numbers."""
    placeholders = module.graph.find_nodes(op="placeholder")
    sizes: set[Any] = set()
    for node in placeholders:
        value = _value(node)
        if isinstance(value, torch.Tensor):
            for size in (*value.shape, *value.stride()):
                sizes |= size.node.expr.free_symbols if isinstance(size, torch.SymInt) else set()
    return frozenset(
        index
        for index, node in enumerate(placeholders)
        if isinstance(_value(node), torch.SymInt)
        and not sizes & _value(node).node.expr.free_symbols
        and _is_counted(node)
    )


def _value(node: Node) -> Any:
    return node.meta.get("val", node.meta.get("example_value"))


def _is_counted(number: Node) -> bool:
    """Whether all that reads a number is arithmetic, of tensors with it or of numbers that end as results."""
    pending, seen = [number], {number}
    while pending:
        for user in pending.pop().users:
            if user.op == "output" or user in seen:
                continue
            if user.op != "call_function":
                return False
            if isinstance(_value(user), torch.Tensor):
                if user.target not in WITH_TENSORS or user.kwargs:
                    return False
            elif user.target in ARITHMETIC or _settled(user) is not None:
                seen.add(user)
                pending.append(user)
            else:
                return False
    return True


def _settled(node: Node) -> Any:
    """The operand that the larger of two numbers always is, as guards of the graph have it; None where either may be.

    Guards say it of a sliding cache that is full, or not yet.
    """
    value = _value(node)
    if node.target is not torch.sym_max or not isinstance(value, torch.SymInt):
        return None
    bounds = value.node.shape_env.bound_sympy
    ranges = [bounds(_value(x).node.expr) if isinstance(x, Node) else None for x in node.args]
    lowest = [x if known is None else known.lower for x, known in zip(node.args, ranges, strict=True)]
    highest = [x if known is None else known.upper for x, known in zip(node.args, ranges, strict=True)]
    if lowest[0] >= highest[1]:
        return node.args[0]
    return node.args[1] if lowest[1] >= highest[0] else None


def split(module: GraphModule, positions: frozenset[int]) -> tuple[GraphModule, Callable[[Sequence[Any], Any], Any]]:
    """A module that takes tensors for the inputs at `positions`; and what puts the numbers among its results.

    The latter is called with the module's arguments, numbers being numbers, and its results.
    """
    graph = Graph()
    copies: dict[Node, Node] = {}
    graph.output(graph.graph_copy(module.graph, copies))
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    results = list(output.args[0])  # type: ignore[arg-type]
    original = list(module.graph.output_node().args[0])  # type: ignore[arg-type]
    places = list(module.graph.find_nodes(op="placeholder"))
    numbers = {places[position] for position in positions}
    for node in module.graph.nodes:
        is_number = node.op == "call_function" and not isinstance(_value(node), torch.Tensor)
        if is_number and node.all_input_nodes and all(operand in numbers for operand in node.all_input_nodes):
            numbers.add(node)
    for node in module.graph.nodes:
        settled = _settled(node)
        if settled is not None:
            given = copies[settled] if isinstance(settled, Node) else settled
            copies[node].replace_all_uses_with(given)  # type: ignore[arg-type]
    asides = {index: node for index, node in enumerate(original) if node in numbers}
    output.args = (tuple(result for index, result in enumerate(results) if index not in asides),)
    unread = {copies[number] for number in numbers if number.op == "call_function"}
    for node in reversed(list(graph.nodes)):
        if node in unread and not node.users:  # of the others some write into their operands
            graph.erase_node(node)
    counting = Graph()
    known: dict[Node, Node] = {}
    for node in module.graph.nodes:
        if node.op == "placeholder" or node in numbers:
            known[node] = counting.node_copy(node, known.__getitem__)
    counting.output(tuple(known[node] for node in asides.values()))
    count = GraphModule(torch.nn.Module(), counting)

    def joined(args: Sequence[Any], rest: Any) -> Any:
        found, others = iter(count(*args)), iter(rest)
        return [next(found) if index in asides else next(others) for index in range(len(original))]

    return GraphModule(module, graph), joined
