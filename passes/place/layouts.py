"""Give every value on the device its dtype and layout, and make every change of layout a node.

Before   ids = to_device(input);   y = embedding(weight, ids);   z = linear(fold_patches(x), w)
After    ids = to_device(input, "uint32", "ROW_MAJOR");   ...;   z = linear(to_layout(fold_patches(x), "TILE"), w)

What arrives from the host arrives as its reader needs it, once for every dtype and layout that is needed. A value made
on the device is converted once, where a reader needs the other layout. Readers that take any layout change nothing; for
a value that only such readers read, ROW_MAJOR saves the device a conversion. A reshape that puts rows into other tiles
is a view of rows, so where they are read as such they are converted before it.
"""

import operator
from collections.abc import Callable

from torch.fx import Graph, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import Sides, aten, dtype_of, is_call, shape_of
from tt_dynamo.ir.spec import DEVICE_DTYPES, Spec
from tt_dynamo.passes.movement import keeps_rows, moves_rows
from tt_dynamo.passes.rewrite import emit

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
            _specialize(node, sides, needs)
            continue
        layout = meta.layout(node.args[0]) if is_call(node, operator.getitem) else gives(node)
        if layout == "same":
            layout = meta.layout.get(node.all_input_nodes[0], "TILE")
            if layout == "TILE" and _is_view_of_rows(node) and _reads_rows(node, sides, needs):
                layout = "ROW_MAJOR"
                conversions += _convert_operand(node, sides)
        if isinstance(node.meta.get("val"), (tuple, list)):
            meta.layout.set(node, layout)
        else:
            _note(node, sides, DEVICE_DTYPES.get(dtype_of(node), "bfloat16"), layout)
            conversions += _convert(node, sides, needs)
    return conversions


def _note(node: Node, sides: Sides, dtype: str, layout: str) -> None:
    """layout "HOST": what TTNN prepares for itself (weights of convolutions) is given to it on the host."""
    on_host = layout == "HOST"
    meta.layout.set(node, "ROW_MAJOR" if on_host else layout)
    spec = Spec(shape_of(node), dtype, meta.layout(node), "HOST" if on_host else "DRAM")
    meta.spec.set(node, spec)
    sides[node] = "device"


def _device_readers(node: Node, sides: Sides) -> list[Node]:
    return [user for user in node.users if sides.get(user) == "device" and not is_call(user, operator.getitem)]


def _specialize(crossing: Node, sides: Sides, needs: Needs) -> None:
    usual = DEVICE_DTYPES[dtype_of(crossing)]
    wanted: dict[tuple[str, str], list[Node]] = {}
    for user in _device_readers(crossing, sides):
        layout, dtype = needs(user, crossing)
        wanted.setdefault((dtype or usual, layout), []).append(user)
    for dtype in [dtype for dtype, layout in wanted if layout == "any"]:
        users = wanted.pop((dtype, "any"))
        settled = next((key for key in wanted if key[0] == dtype), (dtype, "ROW_MAJOR"))
        wanted.setdefault(settled, []).extend(users)
    for (dtype, layout), users in wanted.items():
        with crossing.graph.inserting_before(crossing):
            special = emit(crossing, operators.to_device, crossing.args[0], dtype, layout)
        _note(special, sides, dtype, layout)
        for user in users:
            user.replace_input_with(crossing, special)
    sides.pop(crossing)
    crossing.graph.erase_node(crossing)


def _is_view_of_rows(node: Node) -> bool:
    """Whether a reshape keeps rows, which come into other tiles."""
    is_of_floats = is_call(node, aten.reshape.default) and dtype_of(node).is_floating_point
    return is_of_floats and keeps_rows(node) and moves_rows(node)


def _reads_rows(node: Node, sides: Sides, needs: Needs) -> bool:
    readers = _device_readers(node, sides)
    return (
        bool(readers)
        and all(needs(user, node)[0] == "ROW_MAJOR" for user in readers)
        and len(readers) == len(node.users)
    )


def _convert_operand(node: Node, sides: Sides) -> bool:
    """Whether the first operand was not there in ROW_MAJOR before."""
    x = node.args[0]
    rows = next((u for u in x.users if is_call(u, operators.to_layout) and u.args[1] == "ROW_MAJOR"), None)
    is_new = rows is None
    if rows is None:
        with node.graph.inserting_after(x):
            rows = emit(x, operators.to_layout, x, "ROW_MAJOR")
        _note(rows, sides, meta.spec(x).dtype, "ROW_MAJOR")
    node.replace_input_with(x, rows)
    return is_new


def _convert(node: Node, sides: Sides, needs: Needs) -> bool:
    """Whether readers need the other layout, which then is a node."""
    spec = meta.spec(node)
    readers = [u for u in _device_readers(node, sides) if needs(u, node)[0] not in ("any", "HOST", spec.layout)]
    if readers:
        other = "TILE" if spec.layout == "ROW_MAJOR" else "ROW_MAJOR"
        with node.graph.inserting_after(node):
            converted = emit(node, operators.to_layout, node, other)
        _note(converted, sides, spec.dtype, other)
        if node in meta.dtype:
            meta.dtype.set(converted, meta.dtype(node))
        for user in readers:
            user.replace_input_with(node, converted)
    return bool(readers)
