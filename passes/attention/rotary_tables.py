"""Look cosines and sines of positions up in tables that were made on the host.

Before   angles = positions.float()[..., None] * inv_freq;   cos = cat((angles, angles), -1).cos() * scaling
After    cos = embedding(table, positions),   table = the same of arange(rows)

Models compute the angles in float32. The device holds bfloat16, in which position 1001 is 1000. So a table is computed
on the host in float32, once, as what depends on parameters alone, and rounded when it goes up; positions stay integers.
Where they are literals all of it is a constant anyway. Positions that a table lacks raise IndexError on the host, and
eager torch computes that call.

A table has MORE rows than the KV cache that the graph writes, whose last token may stand past its last row: the
positions of PaliGemma begin at 1. Where the graph writes none, ROWS.
"""

import operator

import torch
from torch.fx import Graph, Node
from torch.fx.node import map_arg

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dead_code, dtype_of, is_call, replace, shape_of, values_of
from tt_dynamo.passes.movement import BY_DIM, dim_of
from tt_dynamo.passes.rewrite import argument, call, emit, is_constant, variable

# Longer than the text that fits next to a model in the memory of one board, and 8 MiB a table at a head_dim of 128.
ROWS = 1 << 15
MORE = 256
ROTARY = (operators.rotary, operators.rotary_by_matrix)
INTEGERS = (torch.int64, torch.int32)
ANGLES = call(aten.mul.Tensor, variable("positions"), variable("frequencies"))
SINES = (aten.cos.default, aten.sin.default)
SIZED = (aten.reshape.default, aten.expand.default)
# What may follow the angles of a position and changes nothing but its row.
ELEMENTWISE = (*SINES, aten.mul.Tensor, aten.mul.Scalar, aten._to_copy.default, aten.neg.default)


def rotary_tables(graph: Graph, context: Context) -> int:
    """Replace what is computed from the angles of positions by lookups; returns how many."""
    constants = constant_nodes(graph)
    rows = _rows(graph)
    changed = 0
    for angles in list(graph.nodes):
        positions, frequencies = _factors(angles, constants) or (None, None)
        chain, ends = _chain(angles) if positions is not None else ([], [])
        if ends:
            with graph.inserting_before(angles):
                tables = _tables(chain, _all_angles(angles, frequencies, rows), rows)
        for end in ends:
            with graph.inserting_before(end):
                indices = emit(end, aten.reshape.default, positions, list(shape_of(angles)[:-1]))
                replace(end, emit(end, aten.embedding.default, tables[end], indices))
        changed += len(ends)
    lookups = [node for node in graph.nodes if is_call(node, aten.embedding.default, operators.look_up)]
    changed += sum(map(_fold_into_table, lookups))
    dead_code(graph)
    return changed


def _fold_into_table(lookup: Node) -> int:
    """Have rotary read rows of tables of its own where it reads parts of the rows of one; returns how many tables.

    Before   both = embedding(table, positions);   cos, sin = (pad(repeat(half)) for half in both.chunk(2, -1))
    After    cos, sin = embedding(cosines, positions), embedding(sines, positions)
    """
    table, positions = lookup.args[:2]
    chain = _rows_of(lookup)
    ends = [node for node in chain if any(user not in chain for user in node.users)]
    are_tables = all(_is_table(end) for end in ends)
    is_whole = all(is_call(node, aten.reshape.default) for node in chain[1:])
    if is_whole or not are_tables or len(shape_of(table)) != 2 or not is_constant(table):
        return 0
    rows = shape_of(table)[0]
    with lookup.graph.inserting_before(lookup):
        tables = _tables(chain, table, rows)
        for end in ends:
            whole = emit(end, aten.reshape.default, tables[end], [rows, shape_of(end)[-1]])
            found = emit(end, lookup.target, whole, positions)
            replace(end, emit(end, aten.reshape.default, found, list(shape_of(end))))
    return len(ends)


def _is_table(x: Node) -> bool:
    """Whether rotary alone reads a value, as cosines or sines, or a reshape of it that rotary alone reads so."""
    others = [user for user in x.users if not is_call(user, *ROTARY) or user.args[0] is x]
    return all(is_call(user, aten.reshape.default) and _is_table(user) for user in others)


def _rows(graph: Graph) -> int:
    writes = [n for n in graph.nodes if is_call(n, operators.update_cache)]
    writes += [n for n in graph.nodes if is_call(n, aten.index_copy.default) and n.args[1] % 4 == 2]
    return max((shape_of(write)[2] + MORE for write in writes if len(shape_of(write)) == 4), default=ROWS)


def _factors(angles: Node, constants: set[Node]) -> tuple[Node, Node] | None:
    """The integers and the vector of frequencies whose product these are: positions [..., 1] * frequencies [n]."""
    for found in ANGLES.matches(angles, {}) if angles not in constants else ():
        positions, frequencies = found["positions"], found["frequencies"]
        shape, width = shape_of(angles), shape_of(frequencies)
        is_vector = frequencies in constants and width == (1,) * (len(width) - 1) + shape[-1:]
        if not is_vector or len(shape) < 2 or shape_of(positions) != (*shape[:-1], 1):
            continue
        while dtype_of(positions) == torch.float32 and is_call(positions, aten.reshape.default, aten._to_copy.default):
            positions = positions.args[0]
        if dtype_of(positions) in INTEGERS and dtype_of(angles) == torch.float32:
            return positions, frequencies
    return None


def _chain(angles: Node) -> tuple[list[Node], list[Node]]:
    """What is computed from each row of the angles by itself, and what of it others read: cosines and sines.

    Nothing where others read the angles themselves, which no table says exactly.
    """
    rank = len(shape_of(angles))
    chain = {angles: False}  # whether it is made of sines alone
    for node in _rows_of(angles)[1:]:
        chain[node] = is_call(node, *SINES) or all(chain.get(n, True) for n in node.all_input_nodes)
    ends, remaining = [], set()
    for node in reversed(chain):
        if any(user not in chain or user in remaining for user in node.users):
            # a row that is no vector belongs to those who made it one
            is_vector = len(values_of(node)) == 1 and len(shape_of(node)) == rank
            ends.append(node) if is_vector else remaining.add(node)
    return (list(chain), ends[::-1]) if all(chain[node] for node in ends) else ([], [])


def _rows_of(node: Node) -> list[Node]:
    """A node, and what is computed from each of its rows along the last dimension by itself."""
    found = {node: None}
    for other in node.graph.nodes:
        inputs = other.all_input_nodes
        if is_call(other, aten.index_select.default) and other.args[2] < node and is_constant(other.args[2]):
            inputs = inputs[:1]  # which columns is not asked of a row
        if inputs and all(n in found for n in inputs) and _keeps_rows(other, len(shape_of(node)) - 1):
            found[other] = None
    return list(found)


def _keeps_rows(node: Node, leading: int) -> bool:
    if is_call(node, *BY_DIM):
        return dim_of(node) >= leading
    if is_call(node, operator.getitem):
        return True
    if not is_call(node, aten.cat.default, aten.constant_pad_nd.default, *ELEMENTWISE, *SIZED):
        return False
    shape, before = shape_of(node), shape_of(node.all_input_nodes[0])
    rank = len(shape)
    if is_call(node, aten.cat.default) and argument(node, 1, 0) % rank < leading:
        return False
    if is_call(node, aten.constant_pad_nd.default) and len(node.args[1]) // 2 > rank - leading:
        return False
    return shape[:leading] == before[:leading] and rank > leading and dtype_of(node).is_floating_point


def _all_angles(angles: Node, frequencies: Node, rows: int) -> Node:
    """The angles of all positions below `rows`, [rows, n]."""
    column = emit(angles, aten.reshape.default, emit(angles, aten.arange.default, rows, dtype=torch.float32), [rows, 1])
    return emit(angles, aten.mul.Tensor, column, emit(angles, aten.reshape.default, frequencies, [-1]))


def _tables(chain: list[Node], table: Node, rows: int) -> dict[Node, Node]:
    """The same for all rows of a table: what each node of the chain is then, [rows, ...]."""
    first, *rest = chain
    leading = len(shape_of(first)) - 1
    known = {first: table}
    for node in rest:
        args = [*map_arg(node.args, lambda n: known.get(n, n))]
        if is_call(node, *BY_DIM, aten.cat.default):
            at = BY_DIM.get(node.target, 1)
            dim = dim_of(node) if node.target in BY_DIM else node.args[1] % len(shape_of(node))
            args[at:] = [dim - leading + 1, *args[at + 1 :]]
        elif is_call(node, *SIZED):
            args = [args[0], [rows, *shape_of(node)[leading:]]]
        known[node] = emit(node, node.target, *args, **{} if node.target in BY_DIM else node.kwargs)
    return known
