"""Give operations that read memory as it lies their operand as eager torch lays it out.

Before   y = as_strided(v, size, stride)                  z = view_as_complex(u)
After    y = as_strided(copy(new_empty_strided(m, …), m), size, stride, offset)
         z = view_as_complex(copy(new_empty_strided(u, …), u))

m is the value whose memory v views. Every other operation sees elements alone, so passes may drop copies, and transfers
may bring values in any strides. Inputs of the graph lie as they were traced and are read as they are.
"""

from __future__ import annotations

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, insert, shape_of
from tt_dynamo.ir.torch_internals import storage_of

BY_STRIDES = frozenset(
    {aten.as_strided.default, aten.view.dtype, aten.view_as_complex.default, aten.as_strided_scatter.default}
)


def keep_strides(graph: Graph, context: Context) -> int:
    """Lay out the operand of every such operation; returns how many."""
    changed = 0
    for node in list(graph.nodes):
        if node.op != "call_function" or not node.users:
            continue
        if node.target is aten.as_strided.default:
            changed += _read_whole_memory(graph, node)
        elif node.target in BY_STRIDES and node.args[0].op != "placeholder" and not _is_laid_out(node.args[0]):
            with graph.inserting_before(node):
                node.replace_input_with(node.args[0], _laid_out(graph, node.args[0], node))
            changed += 1
    return changed


def _read_whole_memory(graph: Graph, node: Node) -> bool:
    """as_strided counts from the start of its operand's memory: let it read that, whichever view it was given."""
    x, size, stride, *rest = node.args
    offset = rest[0] if rest else node.kwargs.get("storage_offset")
    owner = _owner(x)
    if _is_laid_out(owner) or (owner.op == "placeholder" and owner is x):
        return False
    with graph.inserting_before(node):
        memory = owner if owner.op == "placeholder" else _laid_out(graph, owner, node)
    offset = x.meta["val"].storage_offset() if offset is None else offset
    node.args, node.kwargs = (memory, size, stride, offset), {}
    return True


def _owner(node: Node) -> Node:
    """The value that made the memory which `node` views."""
    while node.op == "call_function" and node.all_input_nodes:
        source = node.all_input_nodes[0]
        if not _same_memory(source, node):
            break
        node = source
    return node


def _same_memory(one: Node, other: Node) -> bool:
    a, b = one.meta.get("val"), other.meta.get("val")
    return hasattr(a, "untyped_storage") and storage_of(a) == storage_of(b)


def _is_laid_out(node: Node) -> bool:
    return node.target is aten.copy.default


def _laid_out(graph: Graph, node: Node, like: Node) -> Node:
    """`node` in memory of its own with the strides of its fake value."""
    stride = list(node.meta["val"].stride())
    memory = insert(graph, aten.new_empty_strided.default, (node, list(shape_of(node)), stride), like=like)
    return insert(graph, aten.copy.default, (memory, node), like=like)
