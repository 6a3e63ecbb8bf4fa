"""Compute once what depends on parameters and literals alone.

Before   w = permute(weight)   qkv = cat(wq, wk, wv)   mask = arange(n) >= 0
After    w = constant_0(weight)   qkv = constant_1(wq, wk, wv)   mask = constant_2()

A constant is a call_module whose module holds the operations, so the graph still runs in eager torch; the weight
store evaluates it on the host when one of its parameters changed, and uploads the result. Only values that something
outside the constant part reads become one; a plain parameter needs no folding.
"""

import os
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

from tt_dynamo.ir import meta
from tt_dynamo.ir.graph import Context, constant_nodes, dead_code, is_parameter, needed_for, subgraph, update_values


def fold_constants(graph: Graph, context: Context) -> int:
    """Replace every constant expression that a computed value or the output reads; returns how many."""
    constants = constant_nodes(graph)
    calls = [node for node in graph.nodes if node in constants and node.op == "call_function"]
    update_values(calls)
    tensors = [node for node in calls if isinstance(node.meta.get("val"), torch.Tensor)]
    read = [node for node in tensors if any(user not in constants for user in node.users)]
    for node in read:
        _replace_by_module(graph, node, context.memory.setdefault("constants", {}))
    dead_code(graph)
    return len(read)


def _replace_by_module(graph: Graph, node: Node, modules: dict[Any, str]) -> None:
    parameters = sorted(filter(is_parameter, needed_for(node)))
    attributes, inner = subgraph(node, parameters)
    key = str(inner), *map(id, attributes.values())
    if key not in modules:  # layers make the same of their weights
        modules[key] = f"constant_{len(modules)}"
        graph.owning_module.add_submodule(modules[key], GraphModule(attributes, inner))
    with graph.inserting_after(node):
        call = graph.call_module(modules[key], tuple(parameters))
    call.meta.update(node.meta)
    meta.name.set(call, _name([meta.name.get(p, p.name) for p in parameters]) or modules[key])
    node.replace_all_uses_with(call, propagate_meta=False)


def _name(names: list[str]) -> str:
    """What the names of several parameters have in common: `attention_weight` of the query's, key's and value's."""
    words = [name.split("_") for name in names]
    start = os.path.commonprefix(words)
    end = os.path.commonprefix([word[len(start) :][::-1] for word in words])
    return "_".join([*start, *end[::-1]])
