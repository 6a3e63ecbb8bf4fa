"""Operations on images as TTNN has them: channels last and flattened, [1, 1, batch * height * width, channels].

`image` is (batch, height, width) of what comes in; `padding` is (top, bottom, left, right). Signals of one dimension
are images of height 1.
"""

import torch
import torch.nn.functional as F
from torch.fx import Node

from tt_dynamo.ir.operators.definition import FUSED, WRITTEN, define
from tt_dynamo.ir.operators.linear import ACTIVATIONS

aten = torch.ops.aten

CONVOLVE = "Tensor x, Tensor weight, Tensor? bias, int[] image, int[] stride, int[] padding, int[] dilation, int groups"
POOL = "Tensor x, int[] image, int[] kernel, int[] stride, int[] padding"
IMAGE_ACTIVATIONS = {**ACTIVATIONS, "relu6": F.relu6}


def to_nchw(x, image):
    """Flattened [1, 1, batch * height * width, channels] -> [batch, channels, height, width]."""
    batch, height, width = image
    return x.reshape(batch, height, width, x.shape[-1]).permute(0, 3, 1, 2)


def to_flat(x):
    """[batch, channels, height, width] -> flattened [1, 1, batch * height * width, channels]."""
    batch, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).reshape(1, 1, batch * height * width, channels)


def _padded(x, padding):
    """x, padded where the sides are unequal, and the padding that is left for the operation itself."""
    top, bottom, left, right = padding
    if top == bottom and left == right:
        return x, [top, left]
    return F.pad(x, (left, right, top, bottom)), [0, 0]


@define(f"{CONVOLVE}, str activation='', bool block_sharded=False", FUSED)
def conv2d(x, weight, bias, image, stride, padding, dilation, groups, activation="", block_sharded=False):
    """weight [out, in / groups, kernel height, kernel width], bias [1, 1, 1, out]; then the activation.

    block_sharded: block-sharded in L1, as the convolution that reads it needs that.
    """
    x, own = _padded(to_nchw(x, image), padding)
    bias = None if bias is None else bias.reshape(-1)
    y = to_flat(F.conv2d(x, weight, bias, stride, own, dilation, groups))
    return IMAGE_ACTIVATIONS[activation](y) if activation else y


@define(f"{CONVOLVE}, int[] output_padding", FUSED)
def conv_transpose2d(x, weight, bias, image, stride, padding, dilation, groups, output_padding):
    """weight [in, out / groups, kernel height, kernel width], bias [1, 1, 1, out]; padding (height, width)."""
    bias = None if bias is None else bias.reshape(-1)
    x = to_nchw(x, image)
    return to_flat(F.conv_transpose2d(x, weight, bias, stride, padding, output_padding, groups, dilation))


@define("Tensor x, Tensor y, str activation, bool block_sharded=False", FUSED)
def add_activation(x, y, activation, block_sharded=False):
    """The activation of x + y; block_sharded: block-sharded in L1, as a convolution of it needs that."""
    return IMAGE_ACTIVATIONS[activation](x + y)


@define(f"{POOL}, int[] dilation, bool ceil_mode", FUSED)
def max_pool2d(x, image, kernel, stride, padding, dilation, ceil_mode):
    """The largest element of each window; padding (height, width)."""
    return to_flat(F.max_pool2d(to_nchw(x, image), kernel, stride, padding, dilation, ceil_mode))


@define(f"{POOL}, bool ceil_mode, bool count_include_pad, int? divisor_override", FUSED)
def avg_pool2d(x, image, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override):
    """The mean of each window; padding (height, width)."""
    x = to_nchw(x, image)
    return to_flat(F.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override))


@define("Tensor x, int[] image, int height, int width", FUSED)
def repeat_pixels(x, image, height, width):
    """Every pixel height by width times: upsampling by whole numbers to the nearest neighbour."""
    batch, rows, columns = image
    x = x.reshape(batch, rows, 1, columns, 1, x.shape[-1]).expand(-1, -1, height, -1, width, -1)
    return x.reshape(1, 1, batch * rows * height * columns * width, x.shape[-1])


@define("Tensor x, int count", FUSED)
def first_pixels(x, count):
    """The first `count` pixels of x [..., pixels, channels], which fill as many tiles as all of them."""
    return x[..., :count, :].clone()


@define("Tensor x, int[] sizes, int[] order, int[] shape", FUSED)
def rearrange(x, sizes, order, shape):
    """x split into dimensions of these sizes, put into this order, in the shape of another flattened image."""
    return x.reshape(sizes).permute(order).reshape(shape)


@define("Tensor x, int[] image, int groups, float eps", FUSED)
def group_norm(x, image, groups, eps):
    """Each group of neighbouring channels of each image, normalized by itself."""
    return to_flat(F.group_norm(to_nchw(x, image), groups, eps=eps))


@define("Tensor x, Tensor grid, Tensor rows, Tensor columns, int[] image, bool align_corners", FUSED)
def grid_sample(x, grid, rows, columns, image, align_corners):
    """x between its pixels at grid [batch, height, width, (column, row)], from -1 to 1, with zeros around the image.

    rows [height, 1], columns [width, 1]: the numbers of the image's rows and columns.
    """
    return to_flat(F.grid_sample(to_nchw(x, image), grid, "bilinear", "zeros", align_corners))


@define("Tensor x, Tensor? rows, Tensor? columns", FUSED)
def resample(x, rows, columns):
    """x [..., height, width] -> rowsᵀ x columns, with rows [height, new height] and columns [width, new width].

    Each new row is a weighted sum of rows, and so for columns. None leaves a dimension as it is.
    """
    if rows is not None:
        x = torch.matmul(x.transpose(-1, -2), rows).transpose(-1, -2)
    return x if columns is None else torch.matmul(x, columns)


@define("Tensor x, int height, int width", FUSED)
def fold_patches(x, height, width):
    """Images [batch, H, W, channels] -> patches [batch, H/height * W/width, height * width * channels].

    Within a patch the order is row, column, channel.
    """
    batch, h, w, channels = x.shape
    x = x.reshape(batch, h // height, height, w // width, width, channels).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, (h // height) * (w // width), height * width * channels)


@define("Tensor x", FUSED, WRITTEN)
def gather_patches(x):
    """Images as [batch, channels, rows, height, columns, width] -> patches [batch, rows * columns, those of a patch].

    Within a patch the order is channel, row, column. Volumes have two dimensions more. Rows of a patch are moved as
    wide numbers where they are whole ones, which takes a third of the time.
    """
    order = [0, *range(2, x.ndim, 2), *range(1, x.ndim, 2)]  # what counts patches first
    is_wide = x.is_contiguous() and x.shape[-1] * x.element_size() % 16 == 0
    rows = x.view(torch.complex128) if is_wide else x
    return rows.permute(order).flatten(x.ndim // 2).flatten(1, -2).view(x.dtype)


@define("Tensor x, int stride, int[] padding, int channels", FUSED)
def space_to_depth(x, stride, padding, channels):
    """Images [batch, c, H, W] -> flattened [1, 1, batch * h * w, channels * stride²].

    h = (H + 2 * padding[0]) / stride, and so w. Zeros around the image, and channels of zeros up to `channels`. A pixel
    has those of a square, in the order row, column, channel.
    """
    batch, c, *_ = x.shape
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0], 0, channels - c))
    h, w = (length // stride for length in x.shape[2:])
    squares = x.reshape(batch, channels, h, stride, w, stride).permute(0, 2, 4, 3, 5, 1)
    return squares.reshape(1, 1, batch * h * w, channels * stride**2)


def folding_cores(planes: int, cores: int) -> int:
    """On how many of the worker cores TTNN folds so many channels of images: each takes as many as another."""
    return max(count for count in range(1, min(planes, cores) + 1) if planes % count == 0)


# What those parts of a fused operation are that are still the whole of it, by its name in ATen.
WHOLE = frozenset(
    {
        aten.grid_sampler_2d.default,
        aten.convolution.default,
        aten.max_pool2d_with_indices.default,
        aten.avg_pool2d.default,
    }
)


def can_be_block_sharded(node: Node) -> bool:
    """Whether a node can give a block-sharded result: a sum can, and a convolution of a sum."""
    target, x = node.target, node.args[0]
    return target is add_activation or (target is conv2d and isinstance(x, Node) and x.target is add_activation)
