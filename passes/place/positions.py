"""Keep positions at which images are read in float32 on the device: note the dtype of what they are computed by.

Before   at = add(reference, div(offsets, size));   grid = sub(mul(at, 2), 1);   y = grid_sample(x, grid)
After    the same;   meta.dtype of at, grid and the quotient: "float32"

Where arithmetic outside reads one, as a flow is the difference from where it began, its operands are float32 and its
result is bfloat16; before any other reader the value is cast.
"""

import operator
from collections.abc import Callable

from torch.fx import Graph, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import Sides, aten, dtype_of, is_call, values_of
from tt_dynamo.passes.rewrite import emit

ARITHMETIC = frozenset(
    {
        *(aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar),
        *(aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, operators.scaled_sum),
    }
)
MOVES = frozenset(
    {
        *(aten.reshape.default, aten.view.default, aten.permute.default, aten.select.int, aten.slice.Tensor),
        *(aten.unsqueeze.default, aten.cat.default, aten.expand.default),
        *(aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int, operator.getitem),
    }
)
FLOAT32 = "float32"


def keep_positions(graph: Graph, sides: Sides, refuses: Callable[[Node], bool]) -> int:
    """Note `meta.dtype` of positions on the device; returns of how many. refuses: whether TTNN refused that."""
    grids = [node.args[1] for node in graph.find_nodes(op="call_function", target=operators.grid_sample)]
    found: set[Node] = set()
    while grids:
        node = grids.pop()
        is_computed = is_call(node, *ARITHMETIC, *MOVES) and values_of(node)[0].is_floating_point()
        if node not in found and is_computed and sides.get(node) == "device" and not refuses(node):
            found.add(node)
            grids += node.all_input_nodes
            grids += [part for part in node.users if is_call(part, operator.getitem)]
    for node in graph.nodes if found else ():  # what moves a position once more, for a difference
        continues = is_call(node, *ARITHMETIC) and any(x in found for x in node.all_input_nodes)
        ends = bool(node.users) and all(is_call(user, *ARITHMETIC) for user in node.users)
        if continues and ends and sides.get(node) == "device" and not refuses(node):
            found.add(node)
    exact = [node for node in graph.nodes if node in found and _is_exact(node)]
    for node in exact:
        for reader in list(node.users):
            is_other = reader not in found and not is_call(reader, operators.grid_sample, *ARITHMETIC)
            if is_other and sides.get(reader) == "device":
                with graph.inserting_before(reader):
                    cast = emit(node, aten._to_copy.default, node, dtype=dtype_of(node))
                sides[cast] = "device"
                reader.replace_input_with(node, cast)
    return len(exact)


def _is_exact(node: Node) -> bool:
    """Whether it computes, or moves what was computed, which then is noted; what a network gave is bfloat16."""
    if is_call(node, *ARITHMETIC) or all(
        x in meta.dtype or is_call(x, operators.to_device) for x in node.all_input_nodes
    ):
        meta.dtype.set(node, FLOAT32)
    return node in meta.dtype


def reads_exactly(node: Node) -> bool:
    """Whether a node reads its operands in float32 where they come from the host."""
    if meta.dtype.get(node, "") == FLOAT32:
        return True
    return is_call(node, *ARITHMETIC) and any(meta.dtype.get(x, "") == FLOAT32 for x in node.all_input_nodes)
