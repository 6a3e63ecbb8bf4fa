"""Pixels of several images joined one behind the other, where images end inside a tile.

Before   y = cat([a, b, c], -2)                                       of 1600, 400 and 100 pixels, from convolutions
After    y = first_pixels(cat([a, picks_b @ b + picks_c @ c], -2), 2100)      picks [512, 400], [512, 100] of 0 and 1

Detectors join what they predict of every level. TTNN joins tiles along whole ones: every part was untilized, and the
join tilized, 23 µs a part by the estimate for images that fill no tiles, whatever their size. Products of picks place
what begins or ends inside a tile, if that is not much. A sum with weights of 0 is no pick: an infinity in one image
gives NaN in its channel of those joined so.
"""

import itertools
import math

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.movement import joined_along
from tt_dynamo.passes.rewrite import FLOATS, emit
from tt_dynamo.passes.rows import literal

MOST = 1 << 27  # products of picks and numbers


def join_pixels(graph: Graph, context: Context) -> int:
    """Rewrite every such join; returns how many."""
    count = sum(map(_rewrite, graph.find_nodes(op="call_function", target=aten.cat.default)))
    dead_code(graph)
    return count


def _rewrite(node: Node) -> bool:
    parts = node.args[0]
    if not all(map(_is_image, parts)) or joined_along(node) != -2 or dtype_of(node) not in FLOATS:
        return False
    *ones, total, channels = shape_of(node)
    sizes = [shape_of(part)[-2] for part in parts]
    inside = next((at for at, size in enumerate(sizes) if size % TILE), len(sizes))
    count = sum(sizes[inside:])
    rows = math.ceil(count / TILE) * TILE
    if not 0 < inside < len(sizes) or any(size != 1 for size in ones) or rows * count * channels > MOST:
        return False
    with node.graph.inserting_before(node):
        behind: Node | None = None
        starts = itertools.accumulate(sizes[inside:], initial=0)
        for part, size, start in zip(parts[inside:], sizes[inside:], starts, strict=False):
            picks = torch.zeros(*ones, rows, size, dtype=dtype_of(part))
            picks[..., start : start + size, :] = torch.eye(size)
            placed = emit(node, aten.matmul.default, literal(node, picks), part)
            behind = placed if behind is None else emit(node, aten.add.Tensor, behind, placed)
        joined = emit(node, aten.cat.default, [*parts[:inside], behind], -2)
        replace(node, emit(node, operators.first_pixels, joined, total))
    return True


def _is_image(part: Node) -> bool:
    """Whether a part is what a convolution gives, be it in another shape."""
    return is_call(part.args[0] if is_call(part, aten.reshape.default) else part, operators.conv2d)
