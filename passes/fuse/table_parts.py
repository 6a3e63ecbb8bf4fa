"""The parts of a modulation in one product: a table of a block, plus what an embedding gives for all blocks.

Before   shift, scale, gate = (table + embedded).chunk(3, 1);   y = x * (1 + scale) + shift
After    shift, scale, gate = linear_parts(identity, embedded, table + [0, 1, 0], 3);   y = x * scale + shift

Cutting a sum is a kernel for each part, and so is each part of a sum. A product with the identity adds a table as its
bias and writes all parts in one: the embedding is its weight, of a row for each image, and is read once. Only of parts
that are whole tiles, and of images that are no more than a tile's rows.
Source: PixArt-alpha, Chen et al. 2023, https://arxiv.org/abs/2310.00426
"""

import operator

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.fuse.linear_parts import FEWEST, MOST
from tt_dynamo.passes.movement import BY_DIM, dim_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import ADD, VIEWS, emit, is_constant, is_number
from tt_dynamo.passes.rows import literal


def fuse_table_parts(graph: Graph, context: Context) -> int:
    """Fuse every such sum with its cuts; returns how many."""
    fused = sum(map(_fuse, graph.find_nodes(op="call_function", target=aten.add.Tensor)))
    if fused:
        dead_code(graph)
        canonicalize(graph, context)  # which drops the reshapes before the embedding and behind the parts
    return fused


def _fuse(total: Node) -> bool:
    """Replace the parts of a sum [images, parts, width], each of which is a row; whether it is such a sum."""
    terms = sorted((term for term in total.args if isinstance(term, Node)), key=is_constant)
    images, count, width = shape = shape_of(total) if len(shape_of(total)) == 3 else (0, 0, 0)
    fits = 0 < images <= TILE and FEWEST <= count <= MOST and width % TILE == 0 and not total.kwargs
    if not fits or [(is_constant(term), shape_of(term)) for term in terms] != [(False, shape), (True, (1, *shape[1:]))]:
        return False
    parts = _parts(total)
    if not parts or {*map(dtype_of, terms)} - {dtype_of(total)} or not dtype_of(total).is_floating_point:
        return False
    sums = {part: _plus_number(part) for part in parts}
    numbers = torch.zeros(count, width, dtype=dtype_of(total))
    for part, plus in sums.items():
        if list(parts.values()).count(parts[part]) > 1:  # readers of one row may add other numbers
            sums[part] = None
        elif plus is not None:
            numbers[parts[part]] = plus.args[1]
    with total.graph.inserting_before(total):
        identity = literal(total, torch.eye(images, dtype=dtype_of(total)).unsqueeze(1))
        weight = emit(total, aten.reshape.default, terms[0], [images, count * width])
        bias = emit(total, aten.reshape.default, terms[1], [count * width])
        bias = emit(total, aten.add.Tensor, bias, literal(total, numbers.flatten()))
        made = emit(total, operators.linear_parts, identity, weight, bias, count)
        picks = [emit(total, operator.getitem, made, index) for index in range(count)]
    for part, index in parts.items():
        with total.graph.inserting_before(part):
            replace(part, emit(part, aten.reshape.default, picks[index], list(shape_of(part))))
    for plus in filter(None, sums.values()):
        replace(plus, plus.args[0])
    return True


def _parts(total: Node) -> dict[Node, int]:
    """What cuts make of a sum, by the row that each is; none where something else reads it, or where one is no row."""
    count = shape_of(total)[1]
    found: dict[Node, torch.Tensor] = {}
    for cut in total.users:
        if not is_call(cut, *BY_DIM) or cut.target is aten.index_select.default or dim_of(cut) != 1:
            return {}
        rows = cut.target(torch.arange(count).reshape(1, count, 1), *cut.args[1:], **cut.kwargs)
        found |= {cut: rows} if isinstance(rows, torch.Tensor) else {part: rows[part.args[1]] for part in cut.users}
    return {part: int(row) for part, row in found.items()} if all(row.numel() == 1 for row in found.values()) else {}


def _plus_number(part: Node) -> Node | None:
    """The sum with a number that alone reads a part, or a view of it."""
    reader = only_user(part)
    while reader is not None and is_call(reader, *VIEWS):
        reader = only_user(reader)
    is_plus = reader is not None and is_call(reader, *ADD) and not reader.kwargs and is_number(reader.args[1])
    return reader if is_plus else None
