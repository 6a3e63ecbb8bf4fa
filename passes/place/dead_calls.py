"""Erase the calls of a program whose results nothing reads.

Before   y = max_pool2d(x);  z = to_layout(x);  w = max_pool2d(z);  return w      TTNN refused what was to follow y
After    z = to_layout(x);  w = max_pool2d(z);  return w

Runs on the program's graph. A lowering makes every result of its operation, and tries one call after another. A call
whose result lives in the buffer of an operand may have written there: it stays where a later call reads that buffer, or
where the caller does, as with caches.
"""

from __future__ import annotations

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import is_random, mutates
from tt_dynamo.passes.place.deallocations import buffers


def drop_dead_calls(graph: Graph) -> int:
    """Erase every such call; returns how many. Reads the same meta as `insert_deallocations`."""
    buffer_of = buffers(graph)
    read: set[Node] = set()  # the buffers that later nodes read
    dropped = 0
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and not node.users and not _has_effect(node, buffer_of, read):
            graph.erase_node(node)
            dropped += 1
        else:
            read.update(buffer_of[operand] for operand in node.all_input_nodes if operand in buffer_of)
    return dropped


def _has_effect(node: Node, buffer_of: dict[Node, Node], read: set[Node]) -> bool:
    buffer = buffer_of.get(node, node)
    may_write = buffer is not node and (buffer in read or buffer.op == "placeholder")
    return may_write or mutates(node) or is_random(node) or node.meta.get("path") == "ttnn.deallocate"
