"""Values of TTNN's operations on volumes, and on images read between their pixels; see `references.py`."""

from functools import partial

from torch.nn import functional

from .references import reference


# TTNN has no golden.
@reference("ttnn.experimental.prepare_conv3d_weights")
def prepare_conv3d_weights(*, weight_tensor, groups=1, C_in_block, alignment=32, device=None):
    """[out, in / groups, *kernel] → rows (block of channels, *kernel, channel of the block), columns out.

    Channels that a group does not read have zeros, and so have those that fill up to a multiple of `alignment`.
    """
    out, group, *kernel = weight_tensor.shape
    whole = weight_tensor.new_zeros(out, -(-groups * group // alignment) * alignment, *kernel)
    for index, part in enumerate(weight_tensor.chunk(groups)):
        first = index * out // groups
        whole[first : first + len(part), index * group : (index + 1) * group] = part
    blocks = whole.unflatten(1, (-1, C_in_block))  # [out, blocks, channels of a block, *kernel]
    return blocks.permute(1, 3, 4, 5, 2, 0).reshape(-1, out)


# TTNN has no golden.
@reference("ttnn.experimental.conv3d")
def conv3d(
    *, input_tensor, weight_tensor, bias_tensor=None, config, output_channels, kernel_size, stride, padding, dilation,
    groups=1, device=None, engine,
):  # fmt: skip
    """input [batch, frames, height, width, channels], weights as prepared, bias [1, out] → the same with `out` last."""
    blocks = weight_tensor.reshape(-1, *kernel_size, config.C_in_block, output_channels)
    weight = blocks.permute(5, 0, 4, 1, 2, 3).flatten(1, 2)
    convolve = partial(functional.conv3d, stride=stride, padding=padding, dilation=dilation)
    output = engine.product(input_tensor.permute(0, 4, 1, 2, 3), weight, convolve).permute(0, 2, 3, 4, 1)
    return output if bias_tensor is None else output + bias_tensor.reshape(-1)


# TTNN's golden rounds positions to bfloat16.
@reference("ttnn.grid_sample")
def grid_sample(x, grid, *, align_corners=False):
    """x [batch, height, width, channels] at grid [batch, new height, new width, (column, row)], from -1 to 1."""
    sampled = functional.grid_sample(x.permute(0, 3, 1, 2), grid, "bilinear", "zeros", align_corners)
    return sampled.permute(0, 2, 3, 1)
