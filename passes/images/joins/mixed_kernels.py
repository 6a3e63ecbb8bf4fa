"""Depthwise convolutions of some channels each, joined again, as one of all channels with the largest kernel.

Before   a, b = x.split([n, m], 1);   y = cat([convolution(a, w3, groups=n), convolution(b, w5, groups=m)], 1)
After    y = convolution(x, cat([pad(w3), w5]), groups=n + m)

Each part is cut out, gathers its own pixels and is joined: moves that cost more than zeros in a kernel. TTNN lays the
weights of a depthwise convolution out for all pairs of its channels, so that this holds for few of them.
Source: Tan & Le 2019, MixConv, https://arxiv.org/abs/1907.09595
"""

import math

from torch.fx import Graph, Node

from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, only_user, replace, shape_of
from tt_dynamo.passes.movement import cut_of, joined_along
from tt_dynamo.passes.rewrite import emit, is_constant

MOST = 1 << 20  # numbers in the weights of all pairs of channels


def join_mixed_kernels(graph: Graph, context: Context) -> int:
    """Rewrite every such join; returns how many."""
    count = sum(map(_join, graph.find_nodes(op="call_function", target=aten.cat.default)))
    dead_code(graph)
    return count


def _join(node: Node) -> bool:
    parts = node.args[0]
    is_of_channels = len(shape_of(node)) == 4 and joined_along(node) == -3
    if not is_of_channels or len(parts) < 2 or not all(map(_is_depthwise, parts)):
        return False
    cuts = [cut_of(part.args[0], -3) for part in parts]
    source, begin = cuts[0] or (None, 0), 0
    for part, cut in zip(parts, cuts, strict=True):
        alike = part.args[3] == parts[0].args[3] and (part.args[2] is None) == (parts[0].args[2] is None)
        if cut is None or cut != (source[0], begin) or not alike:
            return False
        begin += shape_of(part)[1]
    x, channels = source[0], shape_of(node)[1]
    kernel = [max(shape_of(part.args[1])[dim] for part in parts) for dim in (2, 3)]
    if shape_of(x)[1] != channels or channels**2 * math.prod(kernel) > MOST:
        return False
    with node.graph.inserting_before(node):
        weights, biases = [], []
        for part in parts:
            _, weight, bias = part.args[:3]
            weights.append(padded(weight, kernel, node))
            biases.append(bias)
        bias = biases[0] and emit(node, aten.cat.default, biases)
        sides = [size // 2 for size in kernel]
        weight, stride = emit(node, aten.cat.default, weights), parts[0].args[3]
        rest = (stride, sides, [1, 1], False, [0, 0], channels)
        replace(node, emit(node, aten.convolution.default, x, weight, bias, *rest))
    return True


def padded(weight: Node, kernel: list[int], like: Node) -> Node:
    """A kernel of odd height and width with zeros around it, up to a larger one."""
    height, width = ((wide - own) // 2 for wide, own in zip(kernel, shape_of(weight)[2:], strict=True))
    return emit(like, aten.constant_pad_nd.default, weight, [width, width, height, height])


def _is_depthwise(node: Node) -> bool:
    return is_around(node) and only_user(node) is not None


def is_around(node: Node) -> bool:
    """Whether a node convolves each channel by itself around each pixel, with constants."""
    if not is_call(node, aten.convolution.default):
        return False
    x, weight, bias, _, padding, dilation, transposed, _, groups = node.args
    sizes = shape_of(weight)[2:]
    is_centered = [2 * side + 1 for side in padding] == [*sizes] and {*dilation} == {1}
    is_own = not transposed and groups == shape_of(x)[1] == shape_of(weight)[0] and len(sizes) == 2
    return is_centered and is_own and is_constant(weight) and is_constant(bias)
