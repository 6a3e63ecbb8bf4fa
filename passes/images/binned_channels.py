"""Expected values of bins, as detectors have distances: heads of bins that fill tiles.

Before   y = convolution(softmax(x.view(batch, 4, 16, n).transpose(1, 2), 1), w)  x [batch, 64, n]: joined convolutions
After    heads = split_lone_heads(x', 4)                 x' [batch, 1, n, 4 * 32]: weights have 16 columns more for each
         y = transpose(linear(merge_heads(softmax(heads)), columns of w))          [batch, 4, n]

The new bins have no weight but a bias whose exponential is 0. Kernels split and merge heads that fill tiles; bins that
fill half of one were untilized, transposed, and reshaped twice. Products with constants, as of decoded boxes, are one.
Only bins that fill half of a tile: numbers of block floats share their exponent with no new ones.
Source: Li et al. 2020, https://arxiv.org/abs/2006.04388
"""

from typing import NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, dtype_of, is_call, only_user, replace, shape_of
from tt_dynamo.ir.spec import TILE
from tt_dynamo.passes.fuse.linears import take
from tt_dynamo.passes.images.moved_channels import is_dense
from tt_dynamo.passes.images.writer import TO_NHWC
from tt_dynamo.passes.movement import is_permute, joined_along
from tt_dynamo.passes.rewrite import FLOATS, emit, is_constant
from tt_dynamo.passes.rows import literal

LOWEST = -1e30


class _Bins(NamedTuple):
    """convolutions: dense, of constants, whose pixels are joined. heads, bins: how many, and of what size."""

    convolutions: list[Node]
    heads: int
    bins: int


def pad_bins(graph: Graph, context: Context) -> int:
    """Rewrite every such expected value; returns how many."""
    count = sum(map(_rewrite, graph.find_nodes(op="call_function", target=aten.convolution.default)))
    dead_code(graph)
    return count


def _rewrite(node: Node) -> bool:
    found = _read(node)
    if found is None:
        return False
    batch, _, heads, count = shape_of(node)
    wide = found.bins + TILE // 2
    end, matrix = _product_behind(node)
    with end.graph.inserting_before(end):
        tokens = [_tokens(convolution, found) for convolution in found.convolutions]
        joined = tokens[0] if len(tokens) == 1 else emit(node, aten.cat.default, tokens, 1)
        joined = emit(node, aten.reshape.default, joined, [batch, 1, count, heads * wide])
        split = emit(node, operators.split_lone_heads, joined, heads)
        merged = emit(node, operators.merge_heads, emit(node, aten.softmax.int, split, -1))
        merged = emit(node, aten.reshape.default, merged, [batch, count, heads * wide])
        weight = _weight(node, found, wide)
        if matrix is not None:
            rows = emit(end, aten.reshape.default, matrix, list(shape_of(matrix)[-2:]))
            weight = emit(end, aten.matmul.default, rows, weight)
        made = emit(end, operators.linear, merged, emit(end, aten.permute.default, weight, [1, 0]), None)
        made = emit(end, aten.permute.default, made, [0, 2, 1])
        replace(end, emit(end, aten.reshape.default, made, list(shape_of(end))))
    return True


def _read(node: Node) -> _Bins | None:
    """The bins of which a convolution of one pixel with constants is the expected value."""
    softmax, weight, bias, stride, padding, *_, groups = node.args
    is_plain = is_dense(node) and bias is None and groups == 1 and shape_of(weight)[2:] == (1, 1)
    if not is_plain or any(padding) or set(stride) != {1} or shape_of(weight)[0] != 1:
        return None
    if not is_call(softmax, aten.softmax.int) or softmax.args[1] % 4 != 1 or dtype_of(node) not in FLOATS:
        return None
    turned = softmax.args[0]
    apart = turned.args[0] if is_permute(turned, [0, 2, 1, 3]) else None
    if apart is None or not is_call(apart, aten.reshape.default):
        return None
    x = apart.args[0]
    batch, heads, bins, count = shape_of(apart)
    parts = x.args[0] if is_call(x, aten.cat.default) and joined_along(x) == -1 else [x]
    convolutions = [part.args[0] if is_call(part, aten.reshape.default) else part for part in parts]
    steps = (softmax, turned, apart, x, *parts, *convolutions)
    is_alone = all(only_user(step) is not None for step in steps)
    if not is_alone or shape_of(x)[:2] != (batch, heads * bins) or bins % TILE != TILE // 2:
        return None
    if any(not is_dense(each) or shape_of(each)[:2] != (batch, heads * bins) for each in convolutions):
        return None
    return _Bins(convolutions, heads, bins)


def _tokens(convolution: Node, found: _Bins) -> Node:
    """What a convolution gives, [batch, pixels, heads * bins], with more bins in each head."""
    wide = found.bins + TILE // 2
    numbers = torch.full((found.heads, wide), -1)
    numbers[:, : found.bins] = torch.arange(found.heads * found.bins).reshape(found.heads, found.bins)
    numbers = numbers.reshape(-1)
    x, weight, bias, *rest = convolution.args
    dtype = dtype_of(convolution)
    lowest = literal(convolution, torch.where(numbers < 0, max(LOWEST, torch.finfo(dtype).min), 0.0).to(dtype))
    if bias is not None:
        lowest = emit(convolution, aten.add.Tensor, take(bias, numbers, convolution, 0), lowest)
    wider = emit(convolution, convolution.target, x, take(weight, numbers, convolution, 0), lowest, *rest)
    batch, channels, height, width = shape_of(wider)
    rows = emit(convolution, aten.permute.default, wider, TO_NHWC)
    return emit(convolution, aten.reshape.default, rows, [batch, height * width, channels])


def _weight(node: Node, found: _Bins, wide: int) -> Node:
    """The weights of bins [1, bins, 1, 1] for each head of its own, [heads, heads * wide]."""
    values = emit(node, aten.reshape.default, node.args[1], [1, found.bins])
    values = emit(node, aten.constant_pad_nd.default, values, [0, wide - found.bins])
    ones = torch.eye(found.heads, dtype=dtype_of(node)).reshape(found.heads, found.heads, 1)
    apart = emit(node, aten.mul.Tensor, literal(node, ones), values)
    return emit(node, aten.reshape.default, apart, [found.heads, found.heads * wide])


def _product_behind(node: Node) -> tuple[Node, Node | None]:
    """The product of a constant [.., columns, heads] and values [batch, heads, n] behind it, and the constant.

    Without one it is the node itself, and None.
    """
    flat = only_user(node)
    product = flat and only_user(flat)
    if product is None or not is_call(product, aten.matmul.default, operators.linear) or product.args[1] is not flat:
        return node, None
    matrix, heads = product.args[0], shape_of(node)[2]
    is_alone = is_call(flat, aten.reshape.default) and not any(product.args[2:]) and is_constant(matrix)
    is_of_heads = shape_of(matrix)[-1] == heads and shape_of(flat)[-2:] == shape_of(node)[-2:]
    return (product, matrix) if is_alone and is_of_heads and set(shape_of(matrix)[:-2]) <= {1} else (node, None)
