"""Rewrite the convolution of a patch embedding as a move of patches and one linear.

Before   y = convolution(x, w, b, stride=kernel, padding=0)
After    y = reshape(permute(linear(gather_patches(x as rows of patches), w as [channels height width, out], b)))
         y = reshape(permute(linear(fold_patches(permute(x, NHWC)), w as [height width channels, out], b)))

Every patch size, of images and of volumes; what fills no patch is cut off, as the convolution does. Overlapping,
padded, dilated, grouped and transposed convolutions stay convolutions. Where the patch is all of it, nothing moves.
So does one of many channels that the device computed: they lie as TTNN's convolution reads them, and a fold untilizes
and tilizes them.

Such moves take as long as there are pieces to move: rows of patches where those are longer than the channels are many,
which images of colours have, else pixels. An input is split into rows of patches on the host, where that is a view.
Channels are not padded: TTNN's fold of an interleaved tensor reads every pixel into an aligned slot and compacts (its
kernel writer_dfb2dram_for_rm_input.cpp, ttnn 0.81.1).
"""

import itertools
import math

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, shape_of
from tt_dynamo.passes.images.writer import TO_NHWC
from tt_dynamo.passes.movement import source_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import ANY, Rules, call, emit, is_constant, variable

RULES = Rules()


def fold_patch_embedding(graph: Graph, context: Context) -> int:
    """Rewrite every patch embedding; returns how many."""
    rewritten = RULES.apply(graph)
    if rewritten:
        canonicalize(graph, context)  # slices of nothing go, and the moves behind now meet those of the linear
    return rewritten


def _patches(node: Node, x: Node, weight: Node, bias: Node | None) -> Node | None:
    out, channels, *kernel = shape_of(weight)
    stride, padding, dilation = ([*values] * (len(kernel) // len(values)) for values in node.args[3:6])
    is_whole = stride == kernel and max(kernel) > 1 and not any(padding) and set(dilation) == {1}
    if len(kernel) not in (2, 3) or not is_whole or not dtype_of(node).is_floating_point:
        return None
    batch, _, *counts = shape_of(node)
    for dim, (count, length) in enumerate(zip(counts, kernel, strict=True), start=2):
        x = emit(node, aten.slice.Tensor, x, dim, 0, count * length)
    elements = channels * math.prod(kernel)
    order = [*range(1, len(kernel) + 2), 0]  # of the weight: as patches have their elements
    if math.prod(counts) == 1:
        patches = emit(node, aten.reshape.default, x, [batch, 1, elements])
    elif len(kernel) == 3 or channels < kernel[-1]:
        sizes = itertools.chain(*zip(counts, kernel, strict=True))
        patches = emit(node, aten.reshape.default, x, [batch, channels, *sizes])
        patches = emit(node, operators.gather_patches, patches)
    elif source_of(x).op != "placeholder":
        return None
    else:
        pixels, order = emit(node, aten.permute.default, x, TO_NHWC), [2, 3, 1, 0]
        patches = emit(node, operators.fold_patches, pixels, *kernel)
    weight = emit(node, aten.permute.default, weight, order)
    weight = emit(node, aten.reshape.default, weight, [elements, out])
    y = emit(node, operators.linear, patches, weight, bias)
    y = emit(node, aten.permute.default, y, [0, 2, 1])
    return emit(node, aten.reshape.default, y, [batch, out, *counts])


WEIGHTS = variable("weight", is_constant), variable("bias", is_constant)
RULES.add("patches", call(aten.convolution.default, variable("x"), *WEIGHTS, ANY, ANY, ANY, False, ANY, 1), _patches)
