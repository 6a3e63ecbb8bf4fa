"""Attention among the pixels of an image, whose heads stand channels first, as attention among tokens.

Before   q, k, v = heads(convolution(x, w))                            each [batch, heads, head_dim, pixels]; w 1 by 1
         y = matmul(v, softmax(matmul(q.T, k) * scale).T)
After    q, k, v = heads(linear(x channels last, columns of w.T))      each [batch, heads, pixels, head_dim]
         y = scaled_dot_product_attention(q, k, v).T
         image(y) = merge(scaled_dot_product_attention(q, k, v))       channels last

Images lie channels last, as tokens do: kernels split and merge their heads, and nothing is transposed. Where something
else reads the values as an image, as a convolution of their positions does, it reads a convolution of those channels.
Areas, which are bands of rows, are attended one by one: pixels keep their order. YOLO 11 and 12.
Source: Tian, Ye & Doermann 2025, https://arxiv.org/abs/2502.12524
"""

import math
from typing import NamedTuple

import torch
from torch.fx import Graph, Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import Context, aten, dead_code, is_call, replace, shape_of
from tt_dynamo.passes.attention.attention import PRODUCTS, read_scores, sdpa, softmax_of, split_scale, transposed
from tt_dynamo.passes.fuse.linears import take, to_heads
from tt_dynamo.passes.images.writer import TO_NCHW, TO_NHWC
from tt_dynamo.passes.movement import is_move, is_permute, moves_behind, positions, source_of, transposing
from tt_dynamo.passes.rewrite import emit, is_constant


class _Heads(NamedTuple):
    """Query, key and value as moves of one convolution.

    operands: what the products read, keys and values [batch, heads, head_dim, pixels], queries transposed. columns: the
    channels of the convolution [heads, head_dim] that each of the three has.
    """

    operands: list[Node]
    columns: list[torch.Tensor]
    scale: float


def attend_pixels(graph: Graph, context: Context) -> int:
    """Rewrite every such attention; returns how many."""
    count = sum(_rewrite(node, context) for node in list(graph.nodes) if is_call(node, *PRODUCTS) and node.users)
    dead_code(graph)
    return count


def _rewrite(node: Node, context: Context) -> bool:
    with node.graph.inserting_before(node):
        found = _read(node, context)
    if found is None:
        return False
    source = source_of(found.operands[2])
    readers = _readers(source, found.operands)
    images = None if readers is None else [(x, _channels_of_image(x, source, context)) for x in readers]
    if images is None or any(channels is None for _, channels in images):
        return False
    with source.graph.inserting_before(source):
        operands = _tokens(source, node, found)
    with node.graph.inserting_before(node):
        attended = emit(node, sdpa, *operands, None, 0.0, False, scale=found.scale)
        for image in _merged_images(node, context):
            with image.graph.inserting_before(image):
                replace(image, _image_of(attended, image))
        if node.users:
            with node.graph.inserting_before(node):
                replace(node, emit(node, aten.permute.default, attended, transposing(4)))
    for x, channels in images:
        with x.graph.inserting_before(x):
            weight, bias = (w and take(w, channels, source, 0) for w in source.args[1:3])
            replace(x, emit(x, source.target, source.args[0], weight, bias, *source.args[3:]))
    return True


def _read(node: Node, context: Context) -> _Heads | None:
    """The attention whose transposed result a product of values and transposed weights is."""
    value, turned = node.args
    if len(shape_of(node)) != 4 or not is_permute(turned, transposing(4)) or len(turned.users) != 1:
        return None
    softmax = softmax_of(turned.args[0])
    scores = None if softmax is None else read_scores(softmax.args[0])
    if scores is None or scores.masks or scores.cap is not None:
        return None
    query, query_scale = split_scale(scores.query)
    key, key_scale = split_scale(scores.keys)
    first = transposed(query)
    source = source_of(value)
    if first is None or not _mixes_pixels(source) or any(source_of(x) is not source for x in (first, key)):
        return None
    found = [_columns(x, source, context) for x in (first, key, value)]
    columns = [each for each in found if each is not None]
    q, k, v = (shape_of(x) for x in (first, key, value))
    if len(columns) < 3 or q != k or k[2] > v[2] or (*k[:2], k[3]) != (*v[:2], v[3]):
        return None
    return _Heads([query, key, value], columns, scores.scale * query_scale * key_scale)


def _mixes_pixels(node: Node) -> bool:
    """Whether a node is a convolution of images by constants, each pixel by itself."""
    if not is_call(node, aten.convolution.default) or len(shape_of(node)) != 4:
        return False
    _, weight, bias, stride, padding, dilation, is_transposed, _, groups = node.args
    is_plain = (*stride, *padding, *dilation) == (1, 1, 0, 0, 1, 1) and not is_transposed and groups == 1
    return is_plain and shape_of(weight)[2:] == (1, 1) and is_constant(weight) and is_constant(bias)


def _places(x: Node, source: Node, context: Context) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Of each element of x the channel of the source that it is, and its pixel counted through the batch."""
    found = positions(x, context)
    if found is None or source_of(x) is not source:
        return None
    grain, first = found
    where = (first[..., None] * grain + torch.arange(grain)).reshape(shape_of(x))
    _, channels, *size = shape_of(source)
    pixels = math.prod(size)
    return where // pixels % channels, where // (pixels * channels) * pixels + where % pixels


def _columns(x: Node, source: Node, context: Context) -> torch.Tensor | None:
    """Channels [heads, head_dim] of the source that x has, [batch, heads, head_dim, pixels], in its order of pixels."""
    places = _places(x, source, context) if len(shape_of(x)) == 4 else None
    if places is None:
        return None
    channel, pixel = places
    batch, _, _, count = shape_of(x)
    numbers = torch.arange(batch * count).reshape(batch, 1, 1, count)
    fits = bool((pixel == numbers).all()) and bool((channel == channel[:1, :, :, :1]).all())
    is_all = batch * count == math.prod(shape_of(source)) // shape_of(source)[1]
    return channel[0, :, :, 0] if fits and is_all else None


def _channels_of_image(x: Node, source: Node, context: Context) -> torch.Tensor | None:
    """Which channels of the source x is an image of, or None where it is anything else."""
    places = _places(x, source, context) if len(shape_of(x)) == 4 else None
    if places is None or (shape_of(x)[0], *shape_of(x)[2:]) != (shape_of(source)[0], *shape_of(source)[2:]):
        return None
    channel, pixel = places
    batch, _, height, width = shape_of(x)
    numbers = torch.arange(batch * height * width).reshape(batch, 1, height, width)
    fits = bool((pixel == numbers).all()) and bool((channel == channel[:1, :, :1, :1]).all())
    return channel[0, :, 0, 0] if fits else None


def _readers(source: Node, operands: list[Node]) -> list[Node] | None:
    """What else than the attention reads moves of the source, as it is read; None where its operands are read twice."""
    ends = []
    for x in moves_behind(source):
        others = [user for user in x.users if not is_move(user)]
        if x is source and others:
            return None
        if others and not (x in operands and len(others) == 1):
            ends.append(x)
    return ends


def _tokens(source: Node, node: Node, found: _Heads) -> list[Node]:
    """Query, key and value as heads of tokens, [batch, heads, pixels, head_dim], each of a linear of its own."""
    x, weight, bias = source.args[:3]
    channels = shape_of(x)[1]
    batch, _, _, pixels = shape_of(node)
    rows = emit(source, aten.permute.default, x, TO_NHWC)
    rows = emit(source, aten.reshape.default, rows, [batch, pixels, channels])
    made = []
    for columns in found.columns:
        numbers = columns.reshape(-1)
        of_part = emit(source, aten.reshape.default, take(weight, numbers, source, 0), [len(numbers), channels])
        of_part = emit(source, aten.permute.default, of_part, [1, 0])
        part = emit(source, operators.linear, rows, of_part, bias and take(bias, numbers, source, 0))
        made.append(to_heads(part, (batch, columns.shape[0], pixels, columns.shape[1]), source))
    return made


def _merged_images(node: Node, context: Context) -> list[Node]:
    """The images of all heads that moves make of attention [batch, heads, head_dim, pixels]."""
    images = []
    batch, heads, head_dim, pixels = shape_of(node)
    for x in moves_behind(node):
        if x is node or len(shape_of(x)) != 4 or all(is_move(user) for user in x.users):
            continue
        found, (count, channels, *size) = positions(x, context), shape_of(x)
        if found is None or channels != heads * head_dim or count * math.prod(size) != batch * pixels:
            continue
        grain, first = found
        where = (first[..., None] * grain + torch.arange(grain)).reshape(-1)
        merged = torch.arange(where.numel()).reshape(batch, heads, head_dim, pixels).permute(0, 3, 1, 2)
        if torch.equal(where, merged.reshape(count, *size, channels).permute(0, 3, 1, 2).reshape(-1)):
            images.append(x)
    return images


def _image_of(attended: Node, image: Node) -> Node:
    """Attended heads of tokens, merged, as an image."""
    batch, heads, pixels, head_dim = shape_of(attended)
    count, channels, *size = shape_of(image)
    merged = emit(image, aten.permute.default, attended, [0, 2, 1, 3])
    merged = emit(image, aten.reshape.default, merged, [batch, pixels, heads * head_dim])
    merged = emit(image, aten.reshape.default, merged, [count, *size, channels])
    return emit(image, aten.permute.default, merged, TO_NCHW)
