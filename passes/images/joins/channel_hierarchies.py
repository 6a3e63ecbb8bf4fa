"""Depthwise convolutions of one part of an image's channels after the other, each of all channels.

Before   a, b, c = x.split(n, 1);   y = convolution(a, v);   z = convolution(y + b, w);   out = cat([y, z, c], 1)
After    s = convolution(x, [v, 1, 1]);                                                  by channel, 1 gives the pixel
         out = convolution(s, [[1, 0, 0], [w, w, 0], [0, 0, 1]])                         the sum is of two channels each

Parts that fill no tiles are cut, added and joined by moves between tiles and rows, which take several times as long as
the convolutions. TTNN lays the weights of a depthwise convolution out for all pairs of its channels anyway, so that one
of all channels costs little more as long as they are few. Whatever depends on no other part is convolved in the first
step. The image is to be finite: an infinity in one channel becomes NaN in all, as in TTNN's own depthwise convolution.
Source: Gao et al. 2019, Res2Net, https://arxiv.org/abs/1904.01169; Maaz et al. 2022, EdgeNeXt,
https://arxiv.org/abs/2206.10589
"""

import dataclasses
import math

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.passes.images.joins.mixed_kernels import is_around, padded
from tt_dynamo.passes.movement import cut_of, joined_along
from tt_dynamo.passes.rewrite import FLOATS, emit
from tt_dynamo.passes.rows import literal

# Numbers in the weights of all pairs of channels, and what they are multiplied by in one step: as long as a move takes.
MOST_WEIGHTS, MOST_PRODUCTS = 1 << 22, 1 << 29


@dataclasses.dataclass(frozen=True)
class Part:
    """Some channels of the result, from `begin` on: those of the image, or a convolution of them.

    added: the part before whose result they are summed with first. step: after how many convolutions it is known.
    """

    begin: int
    size: int
    convolution: Node | None = None
    added: "Part | None" = None
    step: int = 0


def join_channel_hierarchies(graph: Graph, context: Context) -> int:
    """Rewrite every join of such parts; returns how many."""
    count = sum(map(_join, graph.find_nodes(op="call_function", target=aten.cat.default)))
    dead_code(graph)
    return count


def _join(join: Node) -> bool:
    if len(shape_of(join)) != 4 or joined_along(join) != -3 or dtype_of(join) not in FLOATS:
        return False
    found = _parts(join)
    if found is None:
        return False
    x, parts = found
    batch, channels, *size = shape_of(join)
    kernels = [_kernel(parts, step) for step in range(1, 1 + max(part.step for part in parts))]
    weights = [channels**2 * math.prod(kernel) for kernel in kernels]
    if not kernels or max(weights) > MOST_WEIGHTS or max(weights) * batch * math.prod(size) > MOST_PRODUCTS:
        return False
    with join.graph.inserting_before(join):
        for step, kernel in enumerate(kernels, 1):
            x = _convolved(x, parts, step, kernel, join)
        replace(join, x)
    return True


def _parts(join: Node) -> tuple[Node, list[Part]] | None:
    """The image whose channels a join convolves part by part, and the parts in order; None where it does not."""
    known: dict[Node, Part] = {}
    sources, readers, begin = set(), {join}, 0
    for value in join.args[0]:
        convolution = value if _is_depthwise(value) else None
        x, added = (convolution.args[0] if convolution else value), None
        if convolution and is_call(x, aten.add.Tensor) and not x.kwargs and only_user(x) is convolution:
            readers.add(x)
            x, added = _summed(x, known)
        cut = cut_of(x, -3) if x is not None else None
        if cut is None or cut[1] != begin or value in known:
            return None
        step = (1 + added.step if added else 1) if convolution else 0
        known[value] = Part(begin, shape_of(value)[1], convolution, added, step)
        sources.add(cut[0])
        begin += shape_of(value)[1]
    image = sources.pop() if len(sources) == 1 else None
    if image is None or shape_of(image) != shape_of(join) or dtype_of(image) != dtype_of(join):
        return None
    is_alone = all({*value.users} <= readers for value, part in known.items() if part.convolution)
    return (image, [*known.values()]) if is_alone else None


def _summed(total: Node, known: dict[Node, Part]) -> tuple[Node | None, Part | None]:
    """The channels of the image in a sum with a part that is known, and that part."""
    for x, other in (total.args, total.args[::-1]):
        if isinstance(x, Node) and other in known and known[other].convolution and shape_of(x) == shape_of(other):
            return x, known[other]
    return None, None


def _is_depthwise(node: Node) -> bool:
    """Whether a node convolves each channel by itself around each pixel, with constants, and keeps the image's size."""
    return is_around(node) and {*node.args[3]} == {1} and dtype_of(node.args[1]) == dtype_of(node)


def _kernel(parts: list[Part], step: int) -> list[int]:
    """The largest kernel of a step."""
    shapes = [shape_of(part.convolution.args[1]) for part in parts if part.step == step and part.convolution]
    return [max(shape[dim] for shape in shapes) for dim in (2, 3)]


def _convolved(x: Node, parts: list[Part], step: int, kernel: list[int], like: Node) -> Node:
    """x with the parts of one step convolved in their places; what is not of the step stays as it is."""
    dtype, channels = dtype_of(x), shape_of(x)[1]
    reads = torch.eye(channels, dtype=dtype)[..., None, None]
    weights, biases, has_bias = [], [], False
    for part in parts:
        one = torch.zeros(part.size, 1, *kernel, dtype=dtype)
        one[..., kernel[0] // 2, kernel[1] // 2] = 1
        _, weight, bias, *_ = part.convolution.args if part.convolution and part.step == step else (None,) * 3
        weights.append(padded(weight, kernel, like) if weight else literal(like, one))
        biases.append(bias or literal(like, torch.zeros(part.size, dtype=dtype)))
        has_bias |= bias is not None
        if weight and part.added:
            places = torch.arange(part.size)
            reads[part.begin + places, part.added.begin + places] = 1
    weight = emit(like, aten.cat.default, weights)
    is_by_channel = not any(part.added for part in parts if part.step == step)
    if not is_by_channel:
        weight = emit(like, aten.mul.Tensor, weight, literal(like, reads))
    bias = emit(like, aten.cat.default, biases) if has_bias else None
    sides, groups = [side // 2 for side in kernel], channels if is_by_channel else 1
    return emit(like, aten.convolution.default, x, weight, bias, [1, 1], sides, [1, 1], False, [0, 0], groups)
