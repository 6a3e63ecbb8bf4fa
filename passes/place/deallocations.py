"""Free every buffer of a program after the last use of every alias of it.

Before   y = reshape(x);  z = relu(y);  out = to_torch(z)
After    y = reshape(x);  z = relu(y);  y.deallocate();  out = to_torch(z);  z.deallocate()

Runs on the program's graph. x and y share one buffer, so nothing is freed before the last use of both, and then once,
through the alias that was read last. `Tensor.deallocate` does not force, as `ttnn.deallocate` would: TTNN frees only
what nobody else holds, so a mistake here would keep memory, never corrupt it. Weights belong to the store and caches to
their tensors, and are never freed.
"""

from __future__ import annotations

import operator

from torch.fx import Graph, Node


def buffers(graph: Graph) -> dict[Node, Node]:
    """For every tensor on the device, the node that made its buffer."""
    roots: dict[Node, Node] = {}
    for node in graph.nodes:
        if "ttnn" in node.meta:
            alias = node.meta.get("alias")
            roots[node] = roots.get(alias, node) if alias is not None else node
    return roots


def insert_deallocations(graph: Graph) -> int:
    """Insert a deallocation for every buffer that the program makes; returns how many.

    Reads node.meta["ttnn"] (the node is a tensor on the device), node.meta["alias"] (the operand whose buffer it lives
    in, or None), node.meta["weight"] and node.meta["state"].
    """
    roots = buffers(graph)
    last: dict[Node, tuple[Node, Node]] = {}  # buffer → (the node that reads it last, the alias it reads)
    for node in graph.nodes:
        for operand in node.all_input_nodes:
            if operand in roots and node.op != "output":
                last[roots[operand]] = (node, operand)
    inserted = 0
    returned = {roots[n] for n in graph.output_node().all_input_nodes if n in roots}
    for buffer, (reader, alias) in last.items():
        kept = buffer.meta.get("weight") or buffer.meta.get("state")
        if kept or buffer in returned or _still_named(reader, buffer, roots):
            continue
        with graph.inserting_after(reader):
            call = graph.call_method("deallocate", (alias,))
        call.meta["module"] = reader.meta.get("module", "")
        inserted += 1
    return inserted


def _still_named(reader: Node, buffer: Node, roots: dict[Node, Node]) -> bool:
    """Whether the last reader gives an alias of the buffer itself that nothing reads: then there is nothing to free."""
    return reader.target is operator.getitem or (reader in roots and roots[reader] is buffer)
