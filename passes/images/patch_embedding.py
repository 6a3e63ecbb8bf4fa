"""Rewrite the convolution of a patch embedding as a move of patches and one linear.

Before   y = convolution(x, w, b, stride=kernel, padding=0)
After    y = reshape(permute(linear(gather_patches(x as rows of patches), w as [channels height width, out], b)))
         y = reshape(permute(linear(fold_patches(x), w as [height width channels, out], b)))

Every patch size; rows and columns that fill no patch are cut off, as the convolution does. Overlapping, padded,
dilated, grouped and transposed convolutions stay convolutions.

Such moves take as long as there are pieces to move: rows of patches where those are longer than the channels are many,
which images of colours have, else pixels. An input is split into rows of patches on the host, where that is a view.
Channels are not padded: TTNN's fold of an interleaved tensor reads every pixel into an aligned slot and compacts (its
kernel writer_dfb2dram_for_rm_input.cpp, ttnn 0.81.1).
"""

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dtype_of, shape_of
from tt_dynamo.passes.images.writer import pair
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
    stride, padding, dilation = map(pair, node.args[3:6])
    kernel = list(shape_of(weight)[2:])
    is_whole = stride == kernel != [1, 1] and (padding, dilation) == ([0, 0], [1, 1])
    if not is_whole or not dtype_of(node).is_floating_point:
        return None
    batch, out, rows, columns = shape_of(node)
    _, channels, height, width = shape_of(weight)
    x = emit(node, aten.slice.Tensor, x, 2, 0, rows * height)
    x = emit(node, aten.slice.Tensor, x, 3, 0, columns * width)
    if channels < width:
        x = emit(node, aten.reshape.default, x, [batch, channels, rows, height, columns, width])
        patches, order = emit(node, operators.gather_patches, x), [1, 2, 3, 0]
    else:
        patches, order = emit(node, operators.fold_patches, x, height, width), [2, 3, 1, 0]
    weight = emit(node, aten.permute.default, weight, order)
    weight = emit(node, aten.reshape.default, weight, [height * width * channels, out])
    y = emit(node, operators.linear, patches, weight, bias)
    y = emit(node, aten.permute.default, y, [0, 2, 1])
    return emit(node, aten.reshape.default, y, [batch, out, rows, columns])


WEIGHTS = variable("weight", is_constant), variable("bias", is_constant)
RULES.add("patches", call(aten.convolution.default, variable("x"), *WEIGHTS, ANY, ANY, ANY, False, ANY, 1), _patches)
