"""Rows and columns that are cut off an image.

Before   y = slice(conv2d(x, padding p), columns, 0, -k)      as causal convolutions do (temporal networks, WaveNet)
After    y = conv2d(x, padding p on the left, p - k on the right)

What a convolution computes at its sides alone for being cut off is not computed: as many zeros less stand there. Of one
image, and of what else lies in one piece, pixels are cut as they lie, channels last.
"""

import math
from typing import Any

from torch.fx import Node

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten, is_call, only_user
from tt_dynamo.passes.images.writer import Flat, ImageWriter


def crop(write: ImageWriter, x: Node, dim: int, start: int | None, end: int | None, step: int) -> Node | None:
    """Some of an image's rows or columns, neighbours; None where they lie in pieces, or are not known flattened."""
    rank = len(write.shape)
    flat = write.find(x, 1) if rank in (3, 4) else None
    place = dim % rank - rank + 3  # in [batch, height, width]
    if flat is None or step != 1 or place not in (1, 2):
        return None
    start, end, _ = slice(start, end).indices(flat.image[place])
    if end <= start:
        return None
    image = [*flat.image[:place], end - start, *flat.image[place + 1 :]]
    return _convolved(write, x, flat, place, start, end, image) or _cut(write, flat, place, start, end, image)


def _convolved(write: ImageWriter, x: Node, flat: Flat, place: int, start: int, end: int, image: list[int]) -> Any:
    convolution, alone = flat.node, [x]
    while alone[-1] is not convolution and only_user(alone[-1]) is not None and alone[-1].all_input_nodes:
        alone.append(alone[-1].all_input_nodes[0])
    if not is_call(convolution, operators.conv2d) or alone[-1] is not convolution or only_user(convolution) is None:
        return None
    *args, stride, padding, dilation, groups = convolution.args[:8]
    side, less = 2 * (place - 1), [start, flat.image[place] - end]
    own = [padding[side + i] - count * stride[place - 1] for i, count in enumerate(less)]
    if min(own) < 0:
        return None
    padding = [*padding[:side], *own, *padding[side + 2 :]]
    return write.value(write.emit(operators.conv2d, *args, stride, padding, dilation, groups), image)


def _cut(write: ImageWriter, flat: Flat, place: int, start: int, end: int, image: list[int]) -> Any:
    if math.prod(flat.image[:place]) != 1:
        return None
    behind = math.prod(flat.image[place + 1 :])
    return write.value(write.emit(aten.slice.Tensor, flat.node, 2, start * behind, end * behind), image)
