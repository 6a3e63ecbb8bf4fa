"""Look cosines and sines of positions up in tables that were made on the host.

Before   angles = positions.float()[..., None] * inv_freq;   cos = cat((angles, angles), -1).cos() * scaling
After    cos = embedding(table, positions),   table = the same of arange(rows)

Models compute the angles in float32. The device holds bfloat16, in which position 1001 is 1000: the angles would be
wrong without a word. So the table is computed on the host in float32, once, as what depends on parameters alone, and
rounded when it goes up; the positions stay integers, and a lookup of a few rows replaces the computation. Where
positions are literals all of it is a constant anyway. TTNN's embedding is given no row that the table has not: such
positions raise IndexError on the host, and eager torch computes that call.

A table has MORE rows than the KV cache that the graph writes, whose last token may stand past its last row: the
positions of PaliGemma begin at 1. Where the graph writes none, ROWS.
"""

from __future__ import annotations

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dead_code, dtype_of, insert, is_call, replace, shape_of

# Longer than the text that fits next to a model in the memory of one board, and 8 MiB a table at a head_dim of 128.
ROWS = 1 << 15
MORE = 256
INTEGERS = (torch.int64, torch.int32)
SINES = (aten.cos.default, aten.sin.default)
# What may follow the angles of a position and changes nothing but its row.
ELEMENTWISE = (*SINES, aten.mul.Tensor, aten.mul.Scalar, aten._to_copy.default, aten.neg.default)


def rotary_tables(graph: Graph, context: Context) -> int:
    """Replace what is computed from the angles of positions by lookups; returns how many."""
    constants = constant_nodes(graph)
    rows = _rows(graph)
    changed = 0
    for angles in list(graph.nodes):
        positions = _positions_of(angles, constants)
        chain, ends = _chain(angles) if positions is not None else ([], [])
        if positions is None or not ends:
            continue
        with graph.inserting_before(angles):
            tables = _tables(graph, chain, angles.args[angles.args[1] in constants], rows)
        for end in ends:
            with graph.inserting_before(end):
                shape = list(shape_of(angles)[:-1])
                indices = insert(graph, aten.reshape.default, (positions, shape), like=end)
                replace(end, insert(graph, aten.embedding.default, (tables[end], indices), like=end))
            changed += 1
    if changed:
        dead_code(graph)
    return changed


def _rows(graph: Graph) -> int:
    caches = [n.args[0] for n in graph.nodes if is_call(n, operators.update_cache)]
    caches += [n.args[0] for n in graph.nodes if is_call(n, aten.index_copy.default) and n.args[1] % 4 == 2]
    return max((shape_of(cache)[2] + MORE for cache in caches if len(shape_of(cache)) == 4), default=ROWS)


def _positions_of(angles: Node, constants: set[Node]) -> Node | None:
    """The integers whose product with a vector of frequencies these are: positions [..., 1] * frequencies [n]."""
    if not is_call(angles, aten.mul.Tensor) or angles in constants or dtype_of(angles) != torch.float32:
        return None
    for positions, frequencies in (angles.args, angles.args[::-1]):
        if frequencies not in constants or not isinstance(positions, Node):
            continue
        shape, width = shape_of(positions), shape_of(frequencies)
        if shape != (*shape_of(angles)[:-1], 1) or len(width) > len(shape) or len(shape) < 2:
            continue
        if width != (1,) * (len(width) - 1) + shape_of(angles)[-1:]:
            continue
        while dtype_of(positions) == torch.float32 and is_call(positions, aten.reshape.default, aten._to_copy.default):
            positions = positions.args[0]
        if dtype_of(positions) in INTEGERS:
            return positions
    return None


def _chain(angles: Node) -> tuple[list[Node], list[Node]]:
    """What is computed from each row of the angles by itself, and what of it others read: cosines and sines.

    Nothing where others read the angles themselves, which no table says exactly.
    """
    leading = len(shape_of(angles)) - 1
    chain, past = [angles], set()
    for node in angles.graph.nodes:
        inputs = node.all_input_nodes
        if node is not angles and inputs and all(n in chain for n in inputs) and _keeps_rows(node, leading):
            chain.append(node)
            if is_call(node, *SINES) or all(n in past for n in inputs):
                past.add(node)

    def is_end(node: Node) -> bool:
        return any(user not in chain for user in node.users)

    for node in reversed(list(chain)):  # a row that is no vector belongs to those who made it one
        if len(shape_of(node)) != leading + 1 and is_end(node):
            chain.remove(node)
    ends = [node for node in chain if is_end(node)]
    return (chain, ends) if all(node in past for node in ends) else ([], [])


def _keeps_rows(node: Node, leading: int) -> bool:
    if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor):
        return False
    shape, before = shape_of(node), shape_of(node.all_input_nodes[0])
    if shape[:leading] != before[:leading] or len(shape) <= leading or not dtype_of(node).is_floating_point:
        return False
    if is_call(node, aten.cat.default):
        return (node.args[1] if len(node.args) > 1 else 0) % len(shape) >= leading
    if is_call(node, aten.constant_pad_nd.default):
        return len(node.args[1]) // 2 <= len(shape) - leading
    return is_call(node, *ELEMENTWISE, aten.reshape.default, aten.expand.default)


def _tables(graph: Graph, chain: list[Node], frequencies: Node, rows: int) -> dict[Node, Node]:
    """The same for all positions below `rows`: what each node of the chain is then, [rows, ...]."""
    angles, *rest = chain
    leading = len(shape_of(angles)) - 1

    def emit(target, *args, like=angles, **kwargs):
        return insert(graph, target, args, kwargs, like=like)

    positions = emit(aten.arange.default, rows, dtype=torch.float32)
    vector = emit(aten.reshape.default, frequencies, list(shape_of(angles)[-1:]))
    known = {angles: emit(aten.mul.Tensor, emit(aten.reshape.default, positions, [rows, 1]), vector)}
    for node in rest:
        args = torch.fx.node.map_arg(node.args, lambda n: known[n])
        if is_call(node, aten.cat.default):
            args = (args[0], node.args[1] % len(shape_of(node)) - leading + 1)
        elif is_call(node, aten.reshape.default, aten.expand.default):
            args = (args[0], [rows, *shape_of(node)[leading:]])
        known[node] = emit(node.target, *args, like=node, **node.kwargs)
    return known
