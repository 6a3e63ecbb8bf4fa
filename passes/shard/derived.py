"""A plan for a model whose classes carry none: layers of which one cuts what the next adds up.

A linear layer is "rowwise" whose input was made of other linear layers, those "colwise", by operations that keep heads
and elements apart: attention, activations, gates. What depends on no linear layer, as masks and biases of positions
do, may take part. Norms and sums with what came before end such a stretch, since they need whole rows.
"""

import operator
from collections.abc import Mapping

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import meta
from tt_dynamo.ir.graph import aten, is_parameter
from tt_dynamo.passes.shard.placement import Placement

_CARRIERS = {
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.transpose.int, aten.permute.default,
    aten.expand.default, aten.unsqueeze.default, aten.clone.default, aten.contiguous.default, aten._to_copy.default,
    aten.scaled_dot_product_attention.default, aten.matmul.default, aten.bmm.default, aten.softmax.int, aten.t.default,
    aten.slice.Tensor, aten.cat.default, aten.split.Tensor, aten.split_with_sizes.default, aten.index_copy.default,
    operator.getitem,
}  # fmt: skip


def derived_plan(graph: Graph) -> dict[str, str]:
    """The style of each linear layer that is cut, by the name of its module."""
    weight_of = {n: n.args[1] for n in graph.find_nodes(op="call_function", target=aten.linear.default)}
    layers = {n: _module_of(weight) for n, weight in weight_of.items() if is_parameter(weight)}
    of_layers = _depending_on(graph, set(weight_of))
    found: dict[str, str] = {}
    for node, module in layers.items():
        sources = _sources(node.args[0], layers, of_layers)
        names = {layers[source] for source in sources or ()}
        if names and module not in found and all(found.get(name, "colwise") == "colwise" for name in names):
            found.update(dict.fromkeys(names, "colwise"))
            found[module] = "rowwise"
    return {**heads_plan(graph), **found}


def heads_plan(graph: Graph) -> dict[str, str]:
    """Linear layers whose results the caller alone reads, as a language model's head: cut, and joined on the host."""
    found = {}
    for node in graph.find_nodes(op="call_function", target=aten.linear.default):
        weight, readers = node.args[1], [node]
        for value in readers:
            readers += [user for user in value.users if user.target in _CARRIERS or _is_pointwise(user)]
        read = {user for value in readers for user in value.users} - set(readers)
        if is_parameter(weight) and read and all(user.op == "output" for user in read):
            found[_module_of(weight)] = "colwise"
    return found


def without_sources(graph: Graph, cut: Mapping[Node, Placement]) -> list[Node]:
    """The weights that are cut by rows although no layer before them is by columns: there is nothing to add up."""
    layers = dict.fromkeys(graph.find_nodes(op="call_function", target=aten.linear.default), "")
    of_layers, found = _depending_on(graph, set(layers)), []
    for node in layers:
        if 1 in cut.get(node.args[1], ()):
            sources = _sources(node.args[0], layers, of_layers)
            if sources and not any(source.args[1] in cut for source in sources):
                found.append(node.args[1])
    return found


def _module_of(weight: Node) -> str:
    return str(meta.parameter_name.get(weight, "")).rpartition(".")[0]


def _depending_on(graph: Graph, roots: set[Node]) -> set[Node]:
    found = set(roots)
    for node in graph.nodes:
        if not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def _sources(value: Node, layers: dict[Node, str], of_layers: set[Node]) -> set[Node] | None:
    """The linear layers that a value is made of element by element and head by head; None where it is not."""
    found: set[Node] = set()
    seen, stack = set[Node](), [value]
    while stack:
        node = stack.pop()
        if node in seen or node not in of_layers:
            continue
        seen.add(node)
        if node in layers:
            found.add(node)
        elif node.target in _CARRIERS or _is_pointwise(node):
            stack.extend(node.all_input_nodes)
        else:
            return None
    return found


def _is_pointwise(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags
