"""A convolution of one pixel between tokens as a linear, so that no image goes into shards and out of them for it.

Before   y = reshape(conv2d(x, w [out, in, 1, 1], bias, …), [batch, height * width, out])
After    y = reshape(linear(x, permute(w), bias), [batch, height * width, out])        x [1, 1, batch * h * w, in]

Transformers of images have convolutions in their feedforward, and tokens around it (Sana's GLUMBConv). A convolution of
what other convolutions left in shards reads it there, and one that other image operations read leaves its own: those
stay.
Source: Xie et al. 2024, https://arxiv.org/abs/2410.10629
"""

from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, replace, shape_of
from tt_dynamo.passes.movement import keeps_rows
from tt_dynamo.passes.rewrite import emit, is_constant

DEPTH = 8  # operations between images


def pixels_to_products(graph: Graph, context: Context) -> int:
    """Rewrite every such convolution; returns how many."""
    count = sum(map(_rewrite, graph.find_nodes(op="call_function", target=operators.conv2d)))
    dead_code(graph)
    return count


def _rewrite(node: Node) -> bool:
    x, weight, bias, _, stride, padding, _, groups, *rest = node.args
    out, inner, *kernel = shape_of(weight)
    is_pixel = [*kernel, *stride] == [1] * 4 and not any(padding) and groups == 1 and not any(rest)
    if (
        not is_pixel
        or not is_constant(weight)
        or not is_constant(bias)
        or not _gives_tokens(node)
        or _lies_in_shards(x)
    ):
        return False
    with node.graph.inserting_before(node):
        matrix = emit(node, aten.reshape.default, weight, [out, inner])
        vector = bias and emit(node, aten.reshape.default, bias, [out])
        matrix = emit(node, aten.permute.default, matrix, [1, 0])
        replace(node, emit(node, operators.linear, x, matrix, *([] if vector is None else [vector])))
    return True


def _gives_tokens(node: Node) -> bool:
    """Whether all that reads an image are reshapes to rows of batches."""
    return bool(node.users) and all(
        is_call(user, aten.reshape.default) and keeps_rows(user) and len(shape_of(user)) == 3 for user in node.users
    )


def _lies_in_shards(x: Node, depth: int = DEPTH) -> bool:
    """Whether an image is what a convolution left, or what is computed of such as it lies."""
    if is_call(x, aten.slice.Tensor, aten.reshape.default) or not isinstance(x.target, type(aten.add.Tensor)):
        return False
    if is_call(x, operators.conv2d, operators.conv_transpose2d) or not depth:
        return True
    return any(_lies_in_shards(operand, depth - 1) for operand in x.all_input_nodes)
