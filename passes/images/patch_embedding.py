"""Rewrite the convolution of a patch embedding as a fold and one linear.

Before   y = convolution(x, w, b, stride=kernel, padding=0)
After    y = reshape(permute(linear(fold_patches(x), w as [height width channels, out], b)))

Every patch size; rows and columns that fill no patch are cut off, as the convolution does. Overlapping, padded,
dilated, grouped and transposed convolutions stay convolutions. Channels are not padded: TTNN's fold of an interleaved
tensor reads every pixel into an aligned slot and compacts (its kernel writer_dfb2dram_for_rm_input.cpp, ttnn 0.81.1).
"""

from __future__ import annotations

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, constant_nodes, dead_code, dtype_of, insert, replace, shape_of
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def fold_patch_embedding(graph: Graph, context: Context) -> int:
    """Rewrite every patch embedding; returns how many."""
    constants = constant_nodes(graph)
    rewritten = 0
    for node in graph.find_nodes(op="call_function", target=aten.convolution.default):
        if _is_patch_embedding(node, constants):
            with graph.inserting_before(node):
                replace(node, _rewrite(graph, node))
            rewritten += 1
    if rewritten:
        dead_code(graph)
        canonicalize(graph, context)  # the moves behind the convolution now meet those of the linear
    return rewritten


def _is_patch_embedding(node: Node, constants: set[Node]) -> bool:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = node.args
    kernel = list(shape_of(weight)[2:])
    if transposed or groups != 1 or len(kernel) != 2 or not dtype_of(node).is_floating_point:
        return False
    if weight not in constants or (bias is not None and bias not in constants):
        return False
    same = _pair(stride) == kernel and _pair(padding) == [0, 0] and _pair(dilation) == [1, 1]
    return same and kernel != [1, 1] and len(shape_of(x)) == 4


def _pair(values: list[int]) -> list[int]:
    return list(values) * 2 if len(values) == 1 else list(values)


def _rewrite(graph: Graph, node: Node) -> Node:
    def emit(target, *args):
        return insert(graph, target, args, like=node)

    x, weight, bias = node.args[:3]
    batch, out, rows, columns = shape_of(node)
    _, channels, height, width = shape_of(weight)
    for dim, size in ((2, rows * height), (3, columns * width)):
        if shape_of(x)[dim] != size:
            x = emit(aten.slice.Tensor, x, dim, 0, size)
    patches = emit(operators.fold_patches, x, height, width)
    weight = emit(aten.permute.default, weight, [2, 3, 1, 0])
    weight = emit(aten.reshape.default, weight, [height * width * channels, out])
    y = emit(operators.linear, patches, weight, bias)
    y = emit(aten.permute.default, y, [0, 2, 1])
    return emit(aten.reshape.default, y, [batch, out, rows, columns])
