"""Give operations that read memory as it lies their operand as eager torch lays it out.

Before   y = as_strided(v, size, stride)                  z = view_as_complex(u)
After    y = as_strided(copy(new_empty_strided(m, …), m), size, stride, offset)
         z = view_as_complex(copy(new_empty_strided(u, …), u))

m is the value whose memory v views. Every other operation sees elements alone, so passes may drop copies, and transfers
may bring values in any strides. Inputs of the graph lie as they were traced and are read as they are.
"""

from __future__ import annotations

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, shape_of
from tt_dynamo.ir.torch_internals import storage_of
from tt_dynamo.passes.rewrite import Rules, emit

OTHERS = (aten.view.dtype, aten.view_as_complex.default, aten.as_strided_scatter.default)
BY_STRIDES = frozenset({aten.as_strided.default, *OTHERS})

RULES = Rules()


def keep_strides(graph: Graph, context: Context) -> int:
    """Lay out the operand of every such operation; returns how many."""
    return RULES.apply(graph)


@RULES.on(*OTHERS)
def _read_laid_out(node: Node) -> Node | None:
    x, *rest = node.args
    if x.op == "placeholder" or x.target is aten.copy.default:
        return None
    return emit(node, node.target, _laid_out(x, node), *rest, **node.kwargs)


@RULES.on(aten.as_strided.default)
def _read_whole_memory(node: Node) -> Node | None:
    """as_strided counts from the start of its operand's memory: let it read that, whichever view it was given."""
    x, size, stride, *rest = node.args
    owner = _owner(x)
    if owner.target is aten.copy.default or (owner.op == "placeholder" and owner is x):
        return None
    memory = owner if owner.op == "placeholder" else _laid_out(owner, node)
    offset = rest[0] if rest else node.kwargs.get("storage_offset")
    offset = x.meta["val"].storage_offset() if offset is None else offset
    return emit(node, node.target, memory, size, stride, offset)


def _owner(node: Node) -> Node:
    """The value that made the memory which `node` views."""
    while node.op == "call_function" and node.all_input_nodes and _same_memory(node.all_input_nodes[0], node):
        node = node.all_input_nodes[0]
    return node


def _same_memory(one: Node, other: Node) -> bool:
    a, b = one.meta.get("val"), other.meta.get("val")
    return hasattr(a, "untyped_storage") and storage_of(a) == storage_of(b)


def _laid_out(x: Node, like: Node) -> Node:
    """x in memory of its own with the strides of its fake value."""
    memory = emit(like, aten.new_empty_strided.default, x, list(shape_of(x)), list(x.meta["val"].stride()))
    return emit(like, aten.copy.default, memory, x)
