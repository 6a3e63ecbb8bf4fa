"""Weights that TTNN lays out in a way of its own: prepared once, when they go up, and never by a call of the program.

Before   y = conv2d(x, prepare_conv_weights(w, ...))
After    y = conv2d(x, w)                                w: a weight that prepare_conv_weights made as it was uploaded

How a weight is prepared depends on the call that reads it, so a lowering makes both calls. A weight that the program
computes is prepared where it is computed.
"""

from __future__ import annotations

from typing import Any

from torch.fx import Graph, Node

from tt_dynamo.compiler.codegen import inline_call
from tt_dynamo.ir.spec import Spec
from tt_dynamo.ir.uses import WeightUse
from tt_dynamo.runtime.transfer import prepared


def prepare_weights(graph: Graph, uses: list[WeightUse], ttnn: Any, handle: Any) -> None:
    """Take every preparation of a weight out of a program's graph, and those that nothing came of.

    graph: its placeholders are the inputs, then one for each of `uses`, in that order; stays so.
    """
    placeholders = graph.find_nodes(op="placeholder")
    offset = len(placeholders) - len(uses)
    raw = {node: use for node, use in zip(placeholders[offset:], uses, strict=True) if _on_host(use)}
    made: dict[tuple[Node, str], Node] = {}
    for node in list(graph.nodes):
        if not node.meta.get("path", "").startswith("ttnn.prepare_"):
            continue
        if not node.users:  # for a configuration that TTNN then refused
            graph.erase_node(node)
            continue
        (source,) = node.all_input_nodes
        if source not in raw:
            continue
        use, call = raw[source], inline_call(node, {source: "weight"})
        if (source, call) not in made:
            tensor = prepared(ttnn, handle, use.tensor, call)
            spec = Spec(tuple(tensor.shape), tensor.dtype.name.lower(), tensor.layout.name, prepare=call)
            with graph.inserting_before(source):
                made[source, call] = graph.placeholder(source.name)
            made[source, call].meta.update(weight=True, ttnn=spec)
            uses.insert(uses.index(use), WeightUse(use.node, spec, tensor))
        node.replace_all_uses_with(made[source, call], propagate_meta=False)
        graph.erase_node(node)
    for source, use in raw.items():
        if not source.users:
            graph.erase_node(source)
            uses.remove(use)


def _on_host(use: WeightUse) -> bool:
    return use.spec is not None and use.spec.memory == "HOST"
