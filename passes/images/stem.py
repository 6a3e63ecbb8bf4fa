"""Rewrite the convolution that reads the images of the model: squares of pixels become channels.

Before   y = convolution(x, w, b, stride=2, padding=3)                 x [batch, 3, 224, 224], w [64, 3, 7, 7]
After    s = space_to_depth(x, 2, [3, 3], 4)                           [1, 1, batch * 115 * 115, 16]
         y = convolution(s as an image, w as [64, 16, 4, 4], b, stride=1, padding=0)

A move of few channels to the end of each pixel takes as long as there are pixels, and there are as many fewer as a
square has. TTNN folds each channel of an image on a core of its own, so small batches leave cores without work, and
stay as they are. Source: ttnn_functional_resnet50.py of tt-metal, which folds so.
"""

import math

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, is_call, is_parameter, shape_of
from tt_dynamo.ir.operators.image import folding_cores
from tt_dynamo.passes.images.writer import TO_NCHW, pair
from tt_dynamo.passes.rewrite import FLOATS, emit, is_constant

CHANNELS = 4  # of a pixel: TTNN folds rows of no fewer
# How much faster than the move the fold has to be for its launches.
WORTH = 2


def fold_stem(graph: Graph, context: Context) -> int:
    """Rewrite the convolutions of images that come from outside; returns how many."""
    found = graph.find_nodes(op="call_function", target=aten.convolution.default)
    return sum(_fold(node, context.cores) for node in found)


def _fold(node: Node, cores: int) -> bool:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
    if transposed or groups != 1 or len(shape_of(x)) != 4 or not cores * shape_of(x)[0] or not _comes_from_outside(x):
        return False
    (step, *others), padding = pair(stride), pair(padding)
    batch, channels, *size = shape_of(x)
    larger = [length + 2 * around for length, around in zip(size, padding, strict=True)]
    is_square = step > 1 and others == [step] and pair(dilation) == [1, 1]
    if not is_square or any(length % step for length in larger) or channels > CHANNELS or not is_constant(weight):
        return False
    if folding_cores(batch * CHANNELS, cores) * step**2 < WORTH * cores:
        return False
    pixels = [length // step for length in larger]
    with node.graph.inserting_before(node):
        rows = emit(node, operators.space_to_depth, x, step, padding, CHANNELS)
        image = emit(node, aten.reshape.default, rows, [batch, *pixels, CHANNELS * step**2])
        image = emit(node, aten.permute.default, image, TO_NCHW)
        folded = _folded_weight(node, weight, step)
        options = [1, 1], [0, 0], [1, 1], False, [0, 0], 1
        new = emit(node, aten.convolution.default, image, folded, bias, *options)
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)
    return True


def _comes_from_outside(x: Node) -> bool:
    """Whether an image of floats arrives as torch has it, rows of each channel together."""
    while is_call(x, aten._to_copy.default):
        x = x.args[0]
    return x.op == "placeholder" and not is_parameter(x) and dtype_of(x) in FLOATS


def _folded_weight(node: Node, weight: Node, step: int) -> Node:
    """[out, in, height, width] → [out, step² * CHANNELS, height / step, width / step], filled up with zeros."""
    out, channels, height, width = shape_of(weight)
    high, wide = (math.ceil(length / step) for length in (height, width))
    missing = [0, wide * step - width, 0, high * step - height, 0, CHANNELS - channels]
    weight = emit(node, aten.constant_pad_nd.default, weight, missing)
    weight = emit(node, aten.reshape.default, weight, [out, CHANNELS, high, step, wide, step])
    weight = emit(node, aten.permute.default, weight, [0, 3, 5, 1, 2, 4])
    return emit(node, aten.reshape.default, weight, [out, step**2 * CHANNELS, high, wide])
