"""Give every value on the device its dtype and layout, and make every change of layout a node.

Before   ids = to_device(input);   y = embedding(weight, ids);   z = linear(fold_patches(x), w)
After    ids = to_device(input, "uint32", "ROW_MAJOR");   ...;   z = linear(to_layout(fold_patches(x), "TILE"), w)

What arrives from the host arrives as its reader needs it, once for every dtype and layout that is needed. A value made
on the device is converted once, where a reader needs the other layout. Readers that take any layout change nothing; for
a value that only such readers read, ROW_MAJOR saves the device a conversion.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Sides, dtype_of, insert, is_call, shape_of
from tt_dynamo.ir.spec import DEVICE_DTYPES, Spec

# For a node on the device: the layout of its results ("same" as its first operand's), and the (layout, dtype) needed
# of an operand, by position; dtype None is the usual one.
Gives = Callable[[Node], str]
Needs = Callable[[Node, Node], "tuple[str, str | None]"]


def assign_layouts(graph: Graph, sides: Sides, gives: Gives, needs: Needs) -> int:
    """Specialize to_device, insert to_layout, and note each device value's Spec; returns how many conversions."""
    conversions = 0
    for node in list(graph.nodes):
        if sides.get(node) != "device":
            continue
        if is_call(node, operators.to_device):
            _specialize(graph, node, sides, needs)
            continue
        layout = _given(node, gives)
        node.meta["layout"] = layout
        if isinstance(node.meta.get("val"), (tuple, list)):
            continue
        node.meta["ttnn"] = Spec(shape_of(node), DEVICE_DTYPES.get(dtype_of(node), "bfloat16"), layout)
        conversions += _convert(graph, node, layout, sides, needs)
    return conversions


def _given(node: Node, gives: Gives) -> str:
    if node.target is operator.getitem:
        return node.args[0].meta["layout"]
    layout = gives(node)
    return node.all_input_nodes[0].meta.get("layout", "TILE") if layout == "same" else layout


def _device_readers(node: Node, sides: Sides) -> list[Node]:
    return [user for user in node.users if sides.get(user) == "device" and not is_call(user, operator.getitem)]


def _specialize(graph: Graph, crossing: Node, sides: Sides, needs: Needs) -> None:
    usual = DEVICE_DTYPES[dtype_of(crossing)]
    wanted: dict[tuple[str, str], list[Node]] = {}
    for user in _device_readers(crossing, sides):
        layout, dtype = needs(user, crossing)
        wanted.setdefault((dtype or usual, layout), []).append(user)
    if (usual, "any") in wanted:
        settled = next((key for key in wanted if key[0] == usual and key[1] != "any"), (usual, "ROW_MAJOR"))
        wanted.setdefault(settled, []).extend(wanted.pop((usual, "any")))
    for (dtype, layout), users in wanted.items():
        with graph.inserting_before(crossing):
            special = insert(graph, operators.to_device, (crossing.args[0], dtype, layout), like=crossing)
        # "HOST": what TTNN prepares for itself (weights of convolutions) is given to it on the host
        special.meta["layout"] = layout if layout != "HOST" else "ROW_MAJOR"
        memory = "HOST" if layout == "HOST" else "DRAM"
        special.meta["ttnn"] = Spec(shape_of(special), dtype, special.meta["layout"], memory)
        sides[special] = "device"
        for user in users:
            user.replace_input_with(crossing, special)
    sides.pop(crossing)
    graph.erase_node(crossing)


def _convert(graph: Graph, node: Node, layout: str, sides: Sides, needs: Needs) -> int:
    readers = [user for user in _device_readers(node, sides) if needs(user, node)[0] not in ("any", "HOST", layout)]
    if not readers:
        return 0
    other = "TILE" if layout == "ROW_MAJOR" else "ROW_MAJOR"
    with graph.inserting_after(node):
        converted = insert(graph, operators.to_layout, (node, other), like=node)
    converted.meta["layout"] = other
    converted.meta["ttnn"] = Spec(shape_of(node), node.meta["ttnn"].dtype, other)
    sides[converted] = "device"
    for user in readers:
        user.replace_input_with(node, converted)
    return 1
