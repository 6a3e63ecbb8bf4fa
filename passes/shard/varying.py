"""Which values of a chip's graph are another one on other chips."""

from torch.fx import Graph, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import aten, is_call, is_parameter

# What the host does to an input before it goes up in parts.
_MOVED = (aten.permute.default, aten._to_copy.default, aten.constant_pad_nd.default)
_ALIKE_AFTER = {operators.all_reduce: 1, operators.all_gather: 2}  # where the axis stands among the arguments


def is_cut_input(node: Node) -> bool:
    """Whether a node cuts an input of the graph, or one that was moved, which goes up in parts then."""
    if not is_call(node, operators.partition):
        return False
    source = node.args[0]
    while is_call(source, operators.partition, *_MOVED):
        source = source.args[0]
    return source.op == "placeholder" and not is_parameter(source)


def varying(graph: Graph) -> set[Node]:
    """The values that differ along an axis of the mesh; not joined ones, which the host sees whole."""
    axes: dict[Node, frozenset[int]] = {}
    for node in graph.nodes:
        found = frozenset[int]().union(*(axes[operand] for operand in node.all_input_nodes))
        if node in meta.placement:
            found |= {axis for axis, dim in enumerate(meta.placement(node)) if dim is not None}
        elif is_call(node, operators.partition):
            found |= {node.args[2]}
        elif is_call(node, *_ALIKE_AFTER):
            found -= {node.args[_ALIKE_AFTER[node.target]]}
        elif node.op == "call_module":  # a folded constant
            found |= axes_of_constant(getattr(graph.owning_module, str(node.target)))
        axes[node] = found if not is_call(node, operators.join) else frozenset()
    return {node for node, found in axes.items() if found}


def axes_of_constant(module: object) -> frozenset[int]:
    """The axes of the mesh along which chips have other values of a folded constant."""
    graphs = [part.graph for part in getattr(module, "modules", list)() if hasattr(part, "graph")]
    cuts = (node for graph in graphs for node in graph.find_nodes(op="call_function", target=operators.partition))
    return frozenset(node.args[2] for node in cuts)
