"""Weights that TTNN lays out in a way of its own: prepared once, when they go up, and never by a call of the program.

Before   y = conv2d(x, prepare_conv_weights(w, ...))
After    y = conv2d(x, w)                                w: a weight that prepare_conv_weights made as it was uploaded

How a weight is prepared depends on the call that reads it, so a lowering makes both calls. A weight that the program
computes is prepared where it is computed. A mask that attention reads is prepared by filling its tile padding.
"""

from __future__ import annotations

from typing import Any

from torch.fx import Graph, Node

from tt_dynamo.compiler.codegen import inline_call
from tt_dynamo.ir.spec import Spec, evaluate
from tt_dynamo.ir.uses import WeightUse

PREPARATIONS = ("ttnn.prepare_", "ttnn.fill_implicit_tile_padding")
ON_DEVICE = "ttnn.to_device(ttnn.to_layout(weight, ttnn.TILE_LAYOUT), device)"


def prepare_weights(graph: Graph, uses: list[WeightUse], ttnn: Any, handle: Any) -> None:
    """Take every preparation of a weight out of a program's graph, and every weight that nothing reads.

    graph: its placeholders are the inputs, then one for each of `uses`, in that order; stays so.
    """
    placeholders = graph.find_nodes(op="placeholder")
    offset = len(placeholders) - len(uses)
    raw = {node: (use, use.spec) for node, use in zip(placeholders[offset:], uses, strict=True) if use.spec}
    made: dict[tuple[Node, str], Node] = {}
    for node in list(graph.nodes):
        if not node.meta.get("path", "").startswith(PREPARATIONS):
            continue
        (source,) = node.all_input_nodes
        if source not in raw:
            continue
        use, raw_spec = raw[source]
        on_host = raw_spec.memory == "HOST"
        call = inline_call(node, {source: "weight" if on_host else ON_DEVICE})
        if (source, call) not in made:
            tensor = evaluate(call, ttnn, handle, use.tensor) if on_host else use.tensor  # filled in place
            spec = Spec(tuple(tensor.shape), tensor.dtype.name.lower(), tensor.layout.name, prepare=call)
            with graph.inserting_before(source):
                made[source, call] = graph.placeholder(source.name)
            made[source, call].meta.update(weight=True, ttnn=spec)
            uses.insert(uses.index(use), WeightUse(use.node, spec, tensor))
        node.replace_all_uses_with(made[source, call], propagate_meta=False)
        graph.erase_node(node)
    for source, (use, _) in raw.items():
        if not source.users:
            graph.erase_node(source)
            uses.remove(use)
