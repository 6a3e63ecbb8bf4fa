"""Place each node on the device or on the host so that the fewest bytes cross, and make every crossing a node.

Before   a = relu(x);   b = unsupported(a);   c = gelu(b)
After    a = relu(to_device(x));   b = unsupported(to_host(a));   c = gelu(to_device(b));   output to_host(c)

What the device cannot take runs on the host; arithmetic that it can take runs on the device. Moves of data, casts and
integers run wherever a minimum cut puts them: the capacity of an edge is the bytes that would cross. So a mask of int64
becomes a mask of bfloat16 before it goes up, and a slice of the output is cut off before it comes down. Of equal cuts,
reshapes, permutes, casts and choices between two numbers stay on the host, and the rest on the device: the host copies
what it gives TTNN and the caller anyway, so an image goes up channels last and comes down so, and no kernel moves it.
So do patches of an input whose rows are long. A value crosses once, whoever reads it; constants are at home on both
sides.
"""

import logging
import math
import operator
from collections.abc import Callable, Collection

import networkx
import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import (
    Sides,
    aten,
    compute_nodes,
    constant_nodes,
    insert,
    is_call,
    shape_of,
    update_values,
    values_of,
)
from tt_dynamo.ir.spec import DEVICE_DTYPES
from tt_dynamo.passes import movement
from tt_dynamo.passes.normalize.canonicalize import RESHAPES
from tt_dynamo.passes.shard.varying import is_cut_input

log = logging.getLogger(__name__)

VIEWS = frozenset({*RESHAPES, aten.transpose.int})
MOVES = frozenset(
    {
        *(VIEWS | movement.MOVES - {operator.getitem}),
        *(aten.expand.default, aten.cat.default, aten._to_copy.default, aten.repeat.default),
        *(aten.constant_pad_nd.default, aten.gather.default, aten.scatter.src, operators.look_up, operators.pick),
        *(operators.gather_ranked, operators.scatter_ranked, operators.gather_patches),
    }
)
# Values and their places: as exact as the operand is, so they are looked for where it lies.
RANKINGS = (aten.sort.default, aten.sort.stable, aten.topk.default, aten.max.dim, aten.min.dim)
FREE = MOVES | {*RANKINGS, aten.where.Scalar}
NEARLY_FREE_ON_HOST = VIEWS | {aten.permute.default, aten._to_copy.default, aten.where.Scalar}
# Columns of a patch. Beside the cast to bfloat16, patches of a 3 x 224 x 224 image take the host 100 us of 4 columns,
# next to nothing of 16, and more than that of fewer; the device takes 100 us and more, in three launches.
LONG_ROW = 4
# Bytes that a crossing counts for beside its own: one transfer of an input beats two of half its size.
FIXED_COST = 1024
# An input may cross with so many of its bytes more so that the device need not pad it: that moves all of it.
PADDING = 1 / 16


def place(
    graph: Graph,
    can_run: Callable[[Node], bool],
    may_choose: bool = True,
    keeps_outputs: bool = False,
    of_chips: Collection[Node] = (),
) -> Sides:
    """Decide for every computing node and insert the transfers; returns "device" or "host" by node.

    may_choose: whether moves, casts and integers run where the cut puts them; else on the device if it can.
    keeps_outputs: whether results stay on the device, as caches always do. of_chips: what differs from chip to chip of
    a mesh, which does not come to the host, that computes for all of them.
    """
    constants = constant_nodes(graph)
    output = graph.output_node()
    found, caches = output.args[0], meta.kept.get(output, ())
    # Read on the device, by later calls.
    kept = set(found if keeps_outputs else (found[position] for position in caches))
    sides: Sides = {}
    free: list[Node] = []
    for node in (node for node in compute_nodes(graph) if node not in constants):
        if is_cut_input(node) or any(is_call(operand, operators.join) for operand in node.all_input_nodes):
            sides[node] = "host"
            continue
        runs, is_integer = can_run(node), not any(value.is_floating_point() for value in values_of(node))
        if runs and node not in of_chips and may_choose and (is_integer or node.target in FREE) and node not in kept:
            free.append(node)
        else:
            sides[node] = "device" if runs else "host"
    sides.update(_cut(graph, constants, sides, free))
    picks = graph.find_nodes(op="call_function", target=operator.getitem)
    sides.update({pick: sides[pick.args[0]] for pick in picks if pick.args[0] in sides})
    _insert_transfers(graph, sides)
    update_values(n for n in graph.nodes if n.op == "call_function" and sides.get(n, "host") == "host")
    log.debug("%d of %d values on the device", list(sides.values()).count("device"), len(sides))
    return sides


def bytes_on_device(value: torch.Tensor) -> int:
    """Bytes that a value takes when it crosses: two an element for floats and booleans, four for integers."""
    return value.numel() * (4 if DEVICE_DTYPES.get(value.dtype) == "int32" else 2)


def _cut(graph: Graph, constants: set[Node], sides: Sides, free: list[Node]) -> Sides:
    network = networkx.DiGraph()
    network.add_nodes_from(["device", "host"])
    undecided = set(free)
    # One byte outweighs every preference together.
    byte = len(free) + 1
    for node in free:
        capacity = 1
        if is_call(node, aten.constant_pad_nd.default) and _is_input(node.args[0], undecided):
            capacity = byte * math.ceil(PADDING * bytes_on_device(node.args[0].meta["val"]))
        elif is_call(node, operators.gather_patches) and _is_input(node.args[0], undecided):
            # An image that something else reads on the device crosses twice, which takes less than moving it there.
            capacity += _is_nearly_free_on_host(node) * byte * (FIXED_COST + bytes_on_device(node.meta["val"]))
        ends = (node, "host") if capacity > 1 or _is_nearly_free_on_host(node) else ("device", node)
        network.add_edge(*ends, capacity=capacity)

    def vertex(node: Node) -> Node | str:
        producer = node.args[0] if is_call(node, operator.getitem) else node
        return producer if producer in undecided else sides.get(producer, "host")

    for value in graph.nodes:
        if value in constants or value.op == "output" or _is_tuple(value):
            continue
        producer, readers = vertex(value), [vertex(user) for user in value.users]
        if undecided.isdisjoint((producer, *readers)):
            continue
        crossing = byte * (FIXED_COST + sum(map(bytes_on_device, values_of(value))))
        for reader in readers:
            network.add_edge(reader, ("up", value))
            network.add_edge(("down", value), reader)
        network.add_edge(("up", value), producer, capacity=crossing)
        network.add_edge(producer, ("down", value), capacity=crossing)
    _, (on_device, _) = networkx.minimum_cut(network, "device", "host")
    return {node: "device" if node in on_device else "host" for node in free}


def _is_nearly_free_on_host(node: Node) -> bool:
    if is_call(node, operators.gather_patches):
        return shape_of(node.args[0])[-1] >= LONG_ROW
    return node.target in NEARLY_FREE_ON_HOST


def _is_input(node: Node, undecided: set[Node]) -> bool:
    """Whether a value is an input of the graph, or moved from one."""
    while node in undecided and len(node.all_input_nodes) == 1:
        node = node.all_input_nodes[0]
    return node.op == "placeholder"


def _is_tuple(node: Node) -> bool:
    return isinstance(node.meta.get("val"), (tuple, list))


def _insert_transfers(graph: Graph, sides: Sides) -> None:
    """Put to_host and to_device where a value is read on the other side."""
    for node in list(graph.nodes):
        if _is_tuple(node) or node.op == "output":
            continue
        home = sides.get(node, "host")
        away = [user for user in node.users if sides.get(user, "host") != home and not is_call(user, operator.getitem)]
        if not away:
            continue
        # assign_layouts fills in dtype and layout for each reader
        target, args = (operators.to_host, ()) if home == "device" else (operators.to_device, ("", ""))
        with graph.inserting_after(node):
            crossing = insert(graph, target, (node, *args), like=node)
        sides[crossing] = "host" if home == "device" else "device"
        for user in away:
            user.replace_input_with(node, crossing)
