"""Note on what crosses to a mesh how its chips hold it, and refuse what only one of them could compute on the host."""

import dataclasses
from collections.abc import Collection

from torch.fx import Graph, Node

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import Sides, aten, constant_nodes, insert, is_call, only_user, replace
from tt_dynamo.ir.parts import Placement
from tt_dynamo.passes.shard.varying import is_cut_input, varying


def cut_late(graph: Graph) -> int:
    """Have inputs that are only moved and cast before anything computes with them cut after that, so that the host does
    it for all chips; returns how many moves.

    Before   permute(partition(x, 0, axis, 8), [0, 2, 3, 1])
    After    partition(permute(x, [0, 2, 3, 1]), 0, axis, 8)
    """
    moved = 0
    for node in list(graph.nodes):
        if not is_call(node, aten.permute.default, aten._to_copy.default):
            continue
        cuts = [node.args[0]]
        while is_call(cuts[-1], operators.partition) and only_user(cuts[-1]) is not None:
            cuts.append(cuts[-1].args[0])
        whole = cuts.pop()
        if not cuts or not is_cut_input(cuts[0]):
            continue
        with graph.inserting_before(node):
            value = insert(graph, node.target, (whole, *node.args[1:]), node.kwargs, like=node)
            for cut in reversed(cuts):
                dim = cut.args[1] if node.target is aten._to_copy.default else list(node.args[1]).index(cut.args[1])
                value = insert(graph, operators.partition, (value, dim, *cut.args[2:]), like=node)
        replace(node, value)
        for cut in cuts:
            graph.erase_node(cut)
        moved += 1
    return moved


def note_parts(graph: Graph, axes: int, of_chips: Collection[Node]) -> None:
    """Note in the specs of what goes up whether every chip gets its own part of it. of_chips: what differs by chip."""
    constants = constant_nodes(graph)
    for node in graph.find_nodes(op="call_function", target=operators.to_device):
        source, spec = node.args[0], meta.spec(node)
        if source in constants:
            spec = dataclasses.replace(spec, each=source in of_chips)
        elif source.op == "placeholder" and source in meta.placement:
            spec = dataclasses.replace(spec, placement=meta.placement(source))
        elif is_cut_input(source):
            spec = dataclasses.replace(spec, placement=_placement_of(source, axes))
        meta.spec.set(node, spec)


def _placement_of(part: Node, axes: int) -> Placement:
    found: list[int | None] = [None] * axes
    while is_call(part, operators.partition):
        part, dim, axis, _ = part.args
        found[axis] = dim
    return tuple(found)


def on_host(graph: Graph, sides: Sides) -> list[Node]:
    """What would have to be computed on the host for each chip by itself, which no program does."""
    of_chips, constants = varying(graph), constant_nodes(graph)
    computed = (node for node in graph.nodes if node.op == "call_function" and node in of_chips - constants)
    computed = (node for node in computed if node.target not in operators.TRANSFERS and not is_cut_input(node))
    return [node for node in computed if sides.get(node, "host") == "host"]
