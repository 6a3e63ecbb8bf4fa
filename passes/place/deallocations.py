"""Free every buffer of a program after the last use of every alias of it, and erase calls whose results nothing reads.

Before   y = reshape(x);  z = relu(y);  out = to_torch(z)
After    y = reshape(x);  z = relu(y);  y.deallocate();  out = to_torch(z);  z.deallocate()

Both run on the program's graph, and read `meta.spec` (a tensor on the device), `meta.alias` (the operand
whose buffer it lives in, or None), `meta.weight` and `meta.state`. x and y share one buffer: it is freed
once, through the alias that was read last. `Tensor.deallocate` does not force, as `ttnn.deallocate` would: TTNN frees
only what nobody else holds, so a mistake here would keep memory, never corrupt it. Weights and caches are never freed.

A lowering makes every result of its operation, and tries one call after another. A call whose result lives in the
buffer of an operand may have written there: it stays where a later call reads that buffer, or where the caller does.
"""

import operator

from torch.fx import Graph, Node

from tt_dynamo.ir import meta
from tt_dynamo.ir.graph import is_random, mutates


def _buffers(graph: Graph) -> dict[Node, Node]:
    """For every tensor on the device, the node that made its buffer."""
    roots: dict[Node, Node] = {}
    for node in graph.nodes:
        if "ttnn" in node.meta:
            roots[node] = roots.get(meta.alias.get(node, None), node)
    return roots


def drop_dead_calls(graph: Graph) -> int:
    """Erase every call whose result nothing reads, unless it may have written what is read; returns how many."""
    buffer_of = _buffers(graph)
    read: set[Node] = set()  # the buffers that later nodes read
    dropped = 0
    for node in reversed(list(graph.nodes)):
        buffer = buffer_of.get(node, node)
        may_write = buffer is not node and (buffer in read or buffer.op == "placeholder")
        frees = meta.path.get(node, "") == "ttnn.deallocate"
        has_effect = node.op != "call_function" or may_write or frees or mutates(node) or is_random(node)
        if node.users or has_effect:
            read.update(buffer_of[operand] for operand in node.all_input_nodes if operand in buffer_of)
        else:
            graph.erase_node(node)
            dropped += 1
    return dropped


def insert_deallocations(graph: Graph) -> int:
    """Insert a deallocation for every buffer that the program makes; returns how many."""
    buffer_of = _buffers(graph)
    output = graph.output_node()
    last: dict[Node, tuple[Node, Node]] = {}  # buffer → (the node that reads it last, the alias it reads)
    for node in graph.nodes:
        for operand in node.all_input_nodes:
            if operand in buffer_of:
                last[buffer_of[operand]] = (node, operand)
    inserted = 0
    for buffer, (reader, alias) in last.items():
        # A last reader that gives an alias of the buffer itself, which nothing reads: there is nothing to free.
        is_named = reader.target is operator.getitem or buffer_of.get(reader) is buffer
        if is_named or reader is output or buffer.op == "placeholder":
            continue
        with graph.inserting_after(reader):
            call = graph.call_method("deallocate", (alias,))
        meta.module.set(call, meta.module.get(reader, ""))
        inserted += 1
    return inserted
