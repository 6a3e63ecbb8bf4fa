"""Parts of a few rows or columns, added up and joined again, as one product with a matrix of numbers.

Before   near, far = d.chunk(2, 1);   a = c - near;   b = c + far;   y = cat([(a + b) / 2, b - a], 1)       d [1, 4, n]
After    y = m @ d + k            m [4, 4]: how much of each row of d a row of y has;   k: what constants there are

Each part begins inside a tile, so that its cut, its layouts and the join are kernels that only move. Detectors decode
boxes so, of distances to sides or of centers and sizes. In m are zeros: an infinity in one row makes others NaN.
Source: Tian et al. 2019, https://arxiv.org/abs/1904.01355
"""

import dataclasses
import math

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.movement import cut_of, joined_along
from tt_dynamo.passes.rewrite import DIV, FLOATS, MUL, emit, is_constant, is_number
from tt_dynamo.passes.rows import literal

SUMS = {aten.add.Tensor: 1.0, aten.sub.Tensor: -1.0}


@dataclasses.dataclass
class Sum:
    """matrix @ source + constant, along one dimension. nodes: what computes that."""

    source: Node
    matrix: torch.Tensor
    constant: Node | None
    nodes: set[Node]


def fuse_joined_sums(graph: Graph, context: Context) -> int:
    """Fuse every such join; returns how many.

    None in a graph that samples by positions: they stay in float32, which a product would end.
    """
    if graph.find_nodes(op="call_function", target=aten.grid_sampler_2d.default):
        return 0
    count = sum(map(_fuse, graph.find_nodes(op="call_function", target=aten.cat.default)))
    dead_code(graph)
    return count


def _fuse(node: Node) -> bool:
    rank = len(shape_of(node))
    dim = joined_along(node)
    inside = rank > 1 and dim in (-1, -2) and shape_of(node)[dim] <= TILE and dtype_of(node) in FLOATS
    if not inside or is_constant(node):
        return False
    with node.graph.inserting_before(node):
        found = _read(node, dim)
        if found is None or not _saves_moves(node, found, dim):
            return False
        matrix = found.matrix.to(dtype_of(node))
        if dim == -1:
            new = emit(node, operators.linear, found.source, literal(node, matrix.T), None)
        else:
            rows = literal(node, matrix.reshape(*[1] * (rank - 2), *matrix.shape))
            new = emit(node, aten.matmul.default, rows, found.source)
        replace(node, new if found.constant is None else emit(node, aten.add.Tensor, new, found.constant))
    return True


def _saves_moves(node: Node, found: Sum, dim: int) -> bool:
    """Whether nothing else reads the parts, which are cut and added, and one product has all of them."""
    alone = all(user in found.nodes for each in found.nodes - {node} for user in each.users)
    alone = alone and any(is_call(each, *SUMS) for each in found.nodes)
    cuts = sum(cut_of(each, dim) is not None for each in found.nodes)
    is_one = dim == -1 or math.prod(shape_of(found.source)[:-2]) == 1
    return alone and cuts > 1 and is_one and shape_of(found.source)[dim] <= TILE


def _read(node: Node, dim: int) -> Sum | None:
    """A value as such a sum; None where it is another."""
    if (cut := cut_of(node, dim)) is not None and dtype_of(node) == dtype_of(cut[0]):
        rows = cut[1] + torch.arange(shape_of(node)[dim])
        between = {node.args[0]} - {cut[0]}
        return Sum(cut[0], torch.eye(shape_of(cut[0])[dim])[rows], None, {node, *between})
    if is_call(node, *MUL, *DIV) and is_number(node.args[1]) and node.args[1] != 0:
        x = _read(node.args[0], dim)
        factor = node.args[1] if is_call(node, *MUL) else 1 / node.args[1]
        constant = x and x.constant and emit(node, aten.mul.Tensor, x.constant, factor)
        return x and Sum(x.source, x.matrix * factor, constant, x.nodes | {node})
    if is_call(node, aten.cat.default) and joined_along(node) == dim:
        return _joined(node, dim)
    return _added(node, dim) if is_call(node, *SUMS) and not node.kwargs else None


def _added(node: Node, dim: int) -> Sum | None:
    """A sum or difference of two such sums, or of one and a constant of the same shape."""
    read = [None if not isinstance(x, Node) or is_constant(x) else _read(x, dim) for x in node.args]
    known = [x for x in read if x is not None]
    constants = [x.constant if x is not None else y for x, y in zip(read, node.args, strict=True)]
    others = [y for x, y in zip(read, node.args, strict=True) if x is None]
    if not known or len({x.source for x in known}) > 1 or not all(_is_constant_like(y, node) for y in others):
        return None
    if any(shape_of(x) != shape_of(node) for x in node.args):
        return None
    signs = (1.0, SUMS[node.target])
    matrix = torch.stack([sign * x.matrix for sign, x in zip(signs, read, strict=True) if x is not None]).sum(0)
    one, other = constants
    if other is not None:
        other = emit(node, node.target, one, other) if one is not None else emit(node, aten.mul.Tensor, other, signs[1])
    constant = one if other is None else other
    return Sum(known[0].source, matrix, constant, {node}.union(*(x.nodes for x in known)))


def _is_constant_like(x: Node, node: Node) -> bool:
    return isinstance(x, Node) and is_constant(x) and dtype_of(x) == dtype_of(node)


def _joined(node: Node, dim: int) -> Sum | None:
    read = [x for part in node.args[0] if (x := _read(part, dim)) is not None]
    if len(read) < len(node.args[0]) or len({x.source for x in read}) > 1:
        return None
    constant = None
    if any(x.constant is not None for x in read):
        shapes = [shape_of(part) for part in node.args[0]]
        parts = [
            x.constant if x.constant is not None else literal(node, torch.zeros(shape, dtype=dtype_of(node)))
            for x, shape in zip(read, shapes, strict=True)
        ]
        constant = emit(node, aten.cat.default, parts, dim)
    return Sum(read[0].source, torch.cat([x.matrix for x in read]), constant, {node}.union(*(x.nodes for x in read)))
