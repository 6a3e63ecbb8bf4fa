"""Caches that grow at every call: what reads them runs in eager torch, everything else is compiled once.

Before   q, k, v = …;  keys = cat(cache, k);  y = attention(q, keys, …);  …     a program for each length of the cache
After    q, k, v = program_0(…);  keys and y in eager torch;  … = program_1(y)  the same programs for all lengths

A mask over the cache grows with it, and may have a length of its own: one of integers alone, which no node that reads
parameters has. How many tokens a call adds is no such length: each number of them, as a draft model guesses some, has
its programs.

Nodes keep their order, so writes do. A graph most of which would run in eager torch, by what reads parameters, has
inputs of many lengths, and no cache.
"""

import itertools
import operator
from collections.abc import Callable, Iterable
from typing import Any

import sympy
import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_symbols
from torch.fx.passes.utils.fuser_utils import erase_nodes, fuse_as_graphmodule

from tt_dynamo.ir.graph import copy_graph
from tt_dynamo.ir.torch_internals import is_static_input

NUMBERS = (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)
Make = Callable[[GraphModule], Callable[..., Any]]


def split_growing(module: GraphModule, make: Make) -> tuple[GraphModule, list[Node]] | None:
    """The graph with calls of what `make` gives for its parts, and its nodes in eager torch; None where none grows."""
    graph, _ = copy_graph(module.graph)
    computing = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    reading = [node for node in computing if any(is_static_input(operand) for operand in node.all_input_nodes)]
    read = _sizes(map(_value, reading))
    symbols = _growing_sizes(graph, read)
    if symbols:
        symbols |= _mask_sizes(graph) - read
    eager = {node for node in computing if _stays(node, symbols)}
    if not symbols or 2 * sum(node in eager for node in reading) >= len(reading):
        return None
    whole = GraphModule(module, graph)
    runs: list[list[Node]] = [[]]
    for node in computing:
        if node not in eager:
            runs[-1].append(node)
        elif not (_is_arithmetic(node) and set(runs[-1]).isdisjoint(node.all_input_nodes)):
            runs.append([])
    for run in runs:
        if not any(node in run for node in reading):
            eager.update(run)
        elif not _call(whole, run, make):
            return None
    whole.recompile()
    return whole, [node for node in graph.nodes if node in eager and isinstance(_value(node), torch.Tensor)]


def _is_arithmetic(node: Node) -> bool:
    """Whether a node gives a number without a look at contents; such nodes may stand before the rest of a program."""
    return isinstance(_value(node), NUMBERS) and node.target != "item"


def _growing_sizes(graph: Graph, read: set[Any]) -> set[Any]:
    """The symbols of sizes that a result has more of than the input that it continues: by a fixed number, or by a size.

    Of two sizes that add up, nodes with parameters have the tokens', so it is in `read`, and not the cache's.
    """
    inputs = [value for node in graph.find_nodes(op="placeholder") if isinstance(value := _value(node), torch.Tensor)]
    results = [_value(node) for node in graph.output_node().all_input_nodes]
    symbols = set()
    for before, after in itertools.product(inputs, results):
        if isinstance(after, torch.Tensor) and (after.dim(), after.dtype) == (before.dim(), before.dtype):
            sizes = [(sympy.sympify(a), sympy.sympify(b)) for a, b in zip(before.shape, after.shape, strict=True)]
            grown = [(a, b - a) for a, b in sizes if a != b]
            size, growth = grown[0] if len(grown) == 1 else (sympy.S.Zero, sympy.S.Zero)
            if size.is_Symbol and growth.is_positive and (growth.is_Integer or size not in read):
                symbols.add(size)
    return symbols


def _mask_sizes(graph: Graph) -> set[Any]:
    """The symbols of sizes of inputs that are integers or booleans, and of no others."""
    values = [value for node in graph.find_nodes(op="placeholder") if isinstance(value := _value(node), torch.Tensor)]
    exact = [not (value.is_floating_point() or value.is_complex()) for value in values]
    return _sizes(itertools.compress(values, exact)) - _sizes(itertools.compress(values, map(operator.not_, exact)))


def _sizes(values: Iterable[Any]) -> set[Any]:
    return {s for value in values if isinstance(value, torch.Tensor) for s in free_symbols(list(value.shape))}


def _value(node: Node) -> Any:
    return node.meta.get("example_value")


def _stays(node: Node, symbols: set[Any]) -> bool:
    """Whether a node reads or makes a growing size, is a number, takes graphs, or sets how torch computes."""
    values = [_value(n) for n in (node, *node.all_input_nodes)]
    if isinstance(node.target, torch._ops.HigherOrderOperator) or isinstance(values[0], NUMBERS):
        return True
    sets = all(value is None for value in values) and node.target is not torch._C._log_api_usage_once
    return sets or any(symbols & set(free_symbols(value)) for value in values)


def _call(module: GraphModule, run: list[Node], make: Make) -> bool:
    """Put one call in the place of `run`; not where it gives anything but tensors."""
    body, inputs, results = fuse_as_graphmodule(module, run, "Program", always_return_tuple=True)
    if not all(isinstance(_value(node), torch.Tensor) for node in results):
        return False
    compiled, inside = make(body), set(run)

    def program(*args: Any) -> Any:
        return compiled(*args)

    with module.graph.inserting_before(run[-1].next):
        call = module.graph.call_function(program, inputs)
        for index, node in enumerate(results):
            given = module.graph.call_function(operator.getitem, (call, index))
            node.replace_all_uses_with(given, lambda user: user not in inside)
    erase_nodes(module, run)
    return True
