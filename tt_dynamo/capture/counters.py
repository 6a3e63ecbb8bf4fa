"""Python numbers that a graph counts with, and that no size depends on: the tokens that a sliding cache has seen.

Before   forward(s, x):  return x + s, s + 1     with a program for each value of the number s
After    forward(s, x):  return x + s, s + 1     with one program, for which s and s + 1 are tensors
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_symbols, statically_known_true

from tt_dynamo.ir.graph import copy_graph

# Arithmetic with numbers, and how it is written so that it writes into no tensor that stands for one.
ARITHMETIC = {
    **{function: function for function in (operator.add, operator.sub, operator.mul)},
    **{operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul},
}
WITH_TENSORS = {*ARITHMETIC, torch.add, torch.sub, torch.mul}


def counted(module: GraphModule) -> frozenset[int]:
    """The positions of the inputs that are such numbers."""
    placeholders = module.graph.find_nodes(op="placeholder")
    sizes = free_symbols([value_of(node) for node in placeholders if _is_tensor(node)])
    return frozenset(
        index
        for index, node in enumerate(placeholders)
        if isinstance(value_of(node), torch.SymInt) and not sizes & free_symbols(value_of(node)) and _is_counted(node)
    )


def value_of(node: Any) -> Any:
    """What Dynamo says that a node gives; a number is itself."""
    return node.meta.get("val", node.meta.get("example_value")) if isinstance(node, Node) else node


def _is_tensor(node: Node) -> bool:
    return isinstance(value_of(node), torch.Tensor)


def _is_counted(number: Node) -> bool:
    """Whether all that reads a number is arithmetic, of tensors with it or of integers that end as results."""
    numbers = [number]
    for node in numbers:
        for user in node.users:
            if _is_tensor(user):
                if user.target not in WITH_TENSORS or user.kwargs:
                    return False
            elif user.op != "output" and user not in numbers:
                is_integer = isinstance(value_of(user), (int, torch.SymInt))
                if not is_integer or (user.target not in ARITHMETIC and _larger(user) is None):
                    return False
                numbers.append(user)
    return True


def _larger(node: Node) -> Any:
    """The operand that the larger of two numbers always is, as guards of the graph have it; None where either may be.

    Guards say it of a sliding cache that is full, or not yet.
    """
    if node.target is not torch.sym_max:
        return None
    first, second = map(value_of, node.args)
    if statically_known_true(first >= second):
        return node.args[0]
    return node.args[1] if statically_known_true(second >= first) else None


def count_in_tensors(module: GraphModule) -> GraphModule:
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
