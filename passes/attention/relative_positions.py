"""Scores of relative positions, looked up along the rows of a product with a table of them.

Before   scores = gather(bmm(q, table), -1, bounded(places)) / scale
After    scores = gather_columns(bmm(q, table / scale), places)

DeBERTa's queries meet the keys of all distances in one product, of which each pair of tokens reads its own distance;
its keys meet the queries of all distances likewise, transposed. A product is in tiles, and so is what attention adds:
places that are literals and in bounds are looked up in tiles, where rows would be laid out as such and back. The number
that scales the scores goes into the table, which is folded; moves may stand before it.

Source: He et al. 2021, https://arxiv.org/abs/2006.03654
"""

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, literal_value, only_user, replace, shape_of
from tt_dynamo.passes.attention.attention import PRODUCTS, split_scale
from tt_dynamo.passes.movement import is_move
from tt_dynamo.passes.rewrite import argument, emit, is_constant


def fuse_relative_positions(graph: Graph, context: Context) -> int:
    """Rewrite every such lookup; returns how many."""
    fused = 0
    for node in graph.find_nodes(op="call_function", target=aten.gather.default):
        if not _reads_table(node):
            continue
        product, _, index = node.args[:3]
        with graph.inserting_before(node):
            new = emit(node, operators.gather_columns, product, _unchecked(index))
        replace(node, new)
        _take_scale(new)
        fused += 1
    dead_code(graph)
    return fused


def _reads_table(node: Node) -> bool:
    """Whether a gather reads columns of rows that are a product with a constant, at literals in bounds."""
    product, dim, index = node.args[:3]
    rank = len(shape_of(product))
    if not is_call(product, *PRODUCTS) or rank < 3 or dim % rank != rank - 1 or argument(node, 3):
        return False
    if not is_constant(product.args[1]) or is_constant(product.args[0]) or not dtype_of(product).is_floating_point:
        return False
    if shape_of(index)[:-1] != shape_of(product)[:-1] or not index.meta["val"].numel():
        return False
    places = literal_value(_unchecked(index))
    return places is not None and int(places.min()) >= 0 and int(places.max()) < shape_of(product)[-1]


def _unchecked(index: Node) -> Node:
    return index.args[0] if is_call(index, operators.bounded) else index


def _take_scale(scores: Node) -> None:
    """Multiply the table by the number that alone reads the scores, behind moves of them."""
    product, end = scores.args[0], scores
    while (user := only_user(end)) is not None and is_move(user):
        end = user
    scaled = only_user(end)
    x, scale = (end, 1.0) if scaled is None else split_scale(scaled)
    if x is not end or scale == 1.0 or len(product.users) > 1 or dtype_of(scaled) != dtype_of(end):
        return
    with product.graph.inserting_before(product):
        table = emit(product, aten.mul.Tensor, product.args[1], scale)
    product.args = (product.args[0], table)
    replace(scaled, end)
