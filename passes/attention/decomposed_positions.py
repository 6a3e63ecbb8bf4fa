"""Relative positions that are decomposed by axes of an image become dense products, which move nothing.

Before   rows    = einsum("bhwc,hkc->bhwk", q, by_row)          q [b, h w, c] as an image of h × w
         columns = einsum("bhwc,wkc->bhwk", q, by_column)
         mask    = (rows[..., :, None] + columns[..., None, :]).reshape([b, h w, k k])
After    mask    = (linear(q, cat(by_row, by_column)) * own) @ keys

A batched product wants the rows of an image first, so that the query, both products and their sum are moved. The dense
product multiplies every query by the tables of every row and column of the image; `own` [h w, h k + w k] keeps those of
the query's own, and `keys` [h k + w k, k k] adds for each key those of its row and its column. Both are ones and zeros.

Found by where each element comes from, whatever moves bring it there: SAM, MViT-v2, ViTDet. Only for as many columns as
cost less than the moves do.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.passes.attention.attention import leading_of
from tt_dynamo.passes.movement import chain_of, numbered, run, source_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import FLOATS, emit, is_constant
from tt_dynamo.passes.rows import LIMIT, literal, rows_of

# Columns of the dense product; images of 64 × 64 would have 8192, whose product costs more than attention itself.
MOST_COLUMNS = 2048


class Table(NamedTuple):
    """What one axis adds to the scores: the product of each query and the column that its place and the key's name.

    columns: [channels, groups * size], constant
    group: [seq], which `size` columns of them each query reads
    place: [keys], and which of these each key
    """

    columns: Node
    group: torch.Tensor
    place: torch.Tensor
    size: int


def fuse_decomposed_positions(graph: Graph, context: Context) -> int:
    """Compute decomposed positions by dense products; returns how many sums of them."""
    fused = 0
    for node in graph.find_nodes(op="call_function", target=aten.add.Tensor):
        if node.users and _is_sum(node) and dtype_of(node) in FLOATS and not _is_term(node):
            fused += _fuse(node, context)
    dead_code(graph)
    if fused:
        canonicalize(graph, context)  # reshapes that meet
    return fused


def _is_sum(x: Node) -> bool:
    return is_call(x, aten.add.Tensor) and not x.kwargs and all(isinstance(term, Node) for term in x.args)


def _is_term(node: Node) -> bool:
    """Whether a sum is a term of a sum of the same shape, and nothing else."""
    user = only_user(node)
    return user is not None and _is_sum(user) and shape_of(user) == shape_of(node)


def _terms(node: Node) -> Iterator[Node]:
    for x in node.args:
        if _is_sum(x) and _is_term(x):
            yield from _terms(x)
        else:
            yield x


def _fuse(node: Node, context: Context) -> bool:
    terms = [*_terms(node)]
    products = [x for x in terms if _is_of_product(x)]
    others = [x for x in terms if x not in products]
    query = _common_query(products) if len(products) > 1 else None
    count = math.prod(shape_of(node))
    if query is None or count > LIMIT or any(shape_of(x) != shape_of(node) for x in others):
        return False
    *leading, seq, channels = shape_of(query)
    columns = sum(math.prod(shape_of(source_of(x).args[1])[::2]) for x in products)
    if columns > MOST_COLUMNS or count % (math.prod(leading) * seq):
        return False
    tables = [_table(x, query, shape_of(node)) for x in products]
    if None in tables:
        return False
    with node.graph.inserting_before(node):
        if len(leading) == 1:
            leading = [*leading_of((query, query, query), context)]
        query = emit(node, aten.reshape.default, query, [*leading, seq, channels])  # as attention will have it
        mask = _dense(node, query, [table for table in tables if table])
        for x in others:
            mask = emit(node, aten.add.Tensor, emit(node, aten.reshape.default, x, list(shape_of(mask))), mask)
        replace(node, emit(node, aten.reshape.default, mask, list(shape_of(node))))
    return True


def _is_of_product(x: Node) -> bool:
    product = source_of(x)
    return is_call(product, aten.bmm.default) and is_constant(product.args[1]) and not is_constant(product.args[0])


def _common_query(products: list[Node]) -> Node | None:
    """The value whose rows all products multiply, moved by as little as can be."""
    first, *rest = ([x.args[0], *(move.args[0] for move in chain_of(x.args[0]))] for x in map(source_of, products))
    width = shape_of(first[0])[-1]
    values = (x for x in first if isinstance(x.meta["val"], torch.Tensor) and all(x in chain for chain in rest))
    return next((x for x in values if len(shape_of(x)) in (3, 4) and shape_of(x)[-1] == width), None)


def _table(term: Node, query: Node, shape: tuple[int, ...]) -> Table | None:
    """The table by which a term multiplies the rows of the query; None where it does anything else."""
    product = source_of(term)
    seq, channels = shape_of(query)[-2:]
    rows = rows_of(run(product.args[0], {query: numbered(shape_of(query))}), channels)
    if rows is None:
        return None
    groups, height, size = shape_of(product)
    places = run(term, {product: numbered(shape_of(product))}).expand(shape).reshape(rows.numel(), -1)
    group, place = places // (height * size), places % size
    is_own = torch.equal(rows[group, places // size % height], numbered((rows.numel(), 1)).expand_as(places))
    apart = group[:seq, :1].repeat(rows.numel() // seq, places.shape[1]), place[:1].expand_as(place)
    if not is_own or not torch.equal(group, apart[0]) or not torch.equal(place, apart[1]):
        return None
    with term.graph.inserting_before(term):
        flat = emit(product, aten.permute.default, product.args[1], [1, 0, 2])
        columns = emit(product, aten.reshape.default, flat, [channels, groups * size])
    return Table(columns, group[:seq, 0], place[0], size)


def _dense(node: Node, query: Node, tables: list[Table]) -> Node:
    """The sum of all tables' terms, [batch, heads, seq, keys]."""
    widths = [torch.arange(shape_of(table.columns)[-1]) for table in tables]
    own = torch.cat([group[:, None] == n // size for n, (_, group, _, size) in zip(widths, tables, strict=True)], 1)
    keys = torch.cat([n[:, None] % size == place for n, (_, _, place, size) in zip(widths, tables, strict=True)])
    columns = emit(node, aten.cat.default, [table.columns for table in tables], -1)
    found = emit(node, operators.linear, query, columns, None)
    found = emit(node, aten.mul.Tensor, found, literal(node, own.to(dtype_of(query))))
    return emit(node, operators.linear, found, literal(node, keys.to(dtype_of(query))), None)
