"""Caches that grow by as much at every call: what reads them runs in eager torch, everything else is compiled once.

Before   q, k, v = …;  keys = cat(cache, k);  y = attention(q, keys, …);  …     a program for each length of the cache
After    q, k, v = program_0(…);  keys and y in eager torch;  … = program_1(y)  the same programs for all lengths

Nodes keep their order, so writes do. Few of those in eager torch read a parameter: a graph in which most would has
inputs of many lengths, and no cache.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_symbols

from tt_dynamo.ir.torch_internals import is_static_input

NUMBERS = (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)
Make = Callable[[GraphModule], Callable[..., Any]]


def split_growing(module: GraphModule, make: Make) -> tuple[GraphModule, list[Node]] | None:
    """The graph with calls of what `make` gives for its parts, and its nodes in eager torch; None where none grows."""
    symbols = _growing_sizes(module.graph)
    graph = Graph(module)
    graph.output(graph.graph_copy(module.graph, {}))
    computing = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    eager = {node for node in computing if _stays(node, symbols)}
    reading = [node for node in computing if any(is_static_input(operand) for operand in node.all_input_nodes)]
    if not symbols or 2 * sum(node in eager for node in reading) >= len(reading):
        return None
    _hoist_numbers(graph, eager)
    runs: list[list[Node]] = [[]]
    for node in graph.nodes:
        if node in eager and runs[-1]:
            runs.append([])
        elif node not in eager and node.op not in ("placeholder", "output"):
            runs[-1].append(node)
    for run in runs:
        if not any(node in run for node in reading):
            eager.update(run)
        elif not _call(graph, run, make):
            return None
    return GraphModule(module, graph), [n for n in graph.nodes if n in eager and isinstance(_value(n), torch.Tensor)]


def _growing_sizes(graph: Graph) -> set[Any]:
    """The symbols of sizes that a result has more of, by a fixed number, than the input that it continues."""
    inputs = [value for node in graph.find_nodes(op="placeholder") if isinstance(value := _value(node), torch.Tensor)]
    results = [_value(node) for node in graph.output_node().all_input_nodes]
    symbols = set()
    for before in inputs:
        for after in results:
            if not isinstance(after, torch.Tensor) or after.dim() != before.dim() or after.dtype != before.dtype:
                continue
            sizes = [(_expression(a), _expression(b)) for a, b in zip(before.shape, after.shape, strict=True)]
            grown = [(a, b - a) for a, b in sizes if a != b]
            if len(grown) == 1 and grown[0][0].is_Symbol and grown[0][1].is_Integer and grown[0][1] > 0:
                symbols.add(grown[0][0])
    return symbols


def _expression(size: Any) -> Any:
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


def _value(node: Node) -> Any:
    return node.meta.get("example_value")


def _stays(node: Node, symbols: set[Any]) -> bool:
    """Whether a node reads or makes a growing size, or is none for a program.

    Those are numbers, what takes graphs, and what sets how torch computes from there on, as autocast does.
    """
    values = [_value(n) for n in (node, *node.all_input_nodes)]
    if isinstance(node.target, torch._ops.HigherOrderOperator) or isinstance(values[0], NUMBERS):
        return True
    sets = all(value is None for value in values) and node.target is not torch._C._log_api_usage_once
    return sets or any(symbols & set(free_symbols(value)) for value in values)


def _hoist_numbers(graph: Graph, eager: set[Node]) -> None:
    """Move what counts with sizes of inputs to the front, where it stands between no two nodes of one program."""
    front = graph.find_nodes(op="placeholder")
    known = set(front)
    for node in list(graph.nodes):
        if node in eager and isinstance(_value(node), NUMBERS) and known.issuperset(node.all_input_nodes):
            front[-1].append(node)
            front.append(node)
            known.add(node)


def _call(graph: Graph, run: list[Node], make: Make) -> bool:
    """Put one call in the place of `run`; not where it gives anything but tensors."""
    inside = set(run)
    inputs = list(dict.fromkeys(operand for node in run for operand in node.all_input_nodes if operand not in inside))
    results = [node for node in run if not inside.issuperset(node.users)]
    if not all(isinstance(_value(node), torch.Tensor) for node in results):
        return False
    body = Graph()
    known: dict[Node, Node] = {}
    for node in inputs:
        known[node] = body.placeholder(node.name)
        known[node].meta = dict(node.meta)
    for node in run:
        known[node] = body.node_copy(node, known.__getitem__)
    body.output(tuple(known[node] for node in results))
    compiled = make(GraphModule(graph.owning_module, body))

    def program(*args: Any) -> Any:
        return compiled(*args)

    with graph.inserting_before(run[0]):
        call = graph.call_function(program, tuple(inputs))
        for index, node in enumerate(results):
            given = graph.call_function(operator.getitem, (call, index))
            node.replace_all_uses_with(given, lambda user: user not in inside)
    for node in reversed(run):
        graph.erase_node(node)
    return True
