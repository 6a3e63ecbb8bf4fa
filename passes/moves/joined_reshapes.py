"""Reshapes that follow one another become one, and equal ones the same.

Before   y = reshape(reshape(x, a), b);   z = reshape(x, c);   w = reshape(x, c)
After    y = reshape(x, b);               z = w = reshape(x, c)

One between that something else reads stays: where it is made anyway, the next one may be a view of it.
"""

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import aten, dead_code, is_call, replace, shape_of


def join_reshapes(graph: Graph) -> int:
    """Join the reshapes that other passes left behind; returns how many went."""
    made: dict[tuple[Node, tuple[int, ...]], Node] = {}
    changed = 0
    for node in graph.find_nodes(op="call_function", target=aten.reshape.default):
        x = node.args[0]
        if is_call(x, aten.reshape.default) and len(x.users) == 1:
            node.args = (x.args[0], *node.args[1:])
            made.pop((x.args[0], shape_of(x)), None)
            graph.erase_node(x)
            changed += 1
        key = (node.args[0], shape_of(node))
        equal = node.args[0] if shape_of(node.args[0]) == shape_of(node) else made.setdefault(key, node)
        if equal is not node:
            replace(node, equal)
            changed += 1
    return changed


def cancel_reshapes(graph: Graph) -> int:
    """Drop the reshapes that undo those before them, as of the one group of a norm; returns how many went."""
    changed = 0
    for node in graph.find_nodes(op="call_function", target=aten.reshape.default):
        before = node.args[0]
        if is_call(before, aten.reshape.default) and shape_of(before.args[0]) == shape_of(node):
            replace(node, before.args[0])
            changed += 1
    dead_code(graph)
    return changed
