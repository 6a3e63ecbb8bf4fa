"""References of convolution and pooling, whose images are flattened: [1, 1, batch * height * width, channels]."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from .elementwise import Opaque, activate, reference


def _to_nchw(flat: Tensor, batch: int, height: int, width: int, channels: int) -> Tensor:
    return flat.reshape(batch, height, width, -1)[..., :channels].permute(0, 3, 1, 2)


def _to_flat(image: Tensor) -> Tensor:
    batch, channels, height, width = image.shape
    return image.permute(0, 2, 3, 1).reshape(1, 1, batch * height * width, channels)


def _pad(image: Tensor, padding: Sequence[int]) -> Tensor:
    """Zeros around an image; padding is (height, width) or (top, bottom, left, right)."""
    top, bottom, left, right = padding if len(padding) == 4 else (padding[0], padding[0], padding[1], padding[1])
    return functional.pad(image, (left, right, top, bottom))


# TTNN has no golden: prepared weights are laid out for its kernels. The value kept is that of the original weights.
@reference("ttnn.prepare_conv_weights", "ttnn.prepare_conv_transpose2d_weights")
def prepare_conv_weights(*, weight_tensor: Tensor, **_: Any) -> Opaque:
    return Opaque(weight_tensor)


# TTNN has no golden, as above.
@reference("ttnn.prepare_conv_bias", "ttnn.prepare_conv_transpose2d_bias")
def prepare_conv_bias(*, bias_tensor: Tensor, **_: Any) -> Opaque:
    return Opaque(bias_tensor)


# TTNN's golden can't take prepared weights.
@reference("ttnn.conv2d")
def conv2d(
    *,
    input_tensor: Tensor,
    weight_tensor: Tensor,
    in_channels: int,
    out_channels: int,
    batch_size: int,
    input_height: int,
    input_width: int,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    bias_tensor: Tensor | None = None,
    conv_config: Any = None,
    **_: Any,
) -> Tensor:
    """Weights [out, in / groups, kernel height, kernel width], as given or prepared; bias [1, 1, 1, out]."""
    image = _to_nchw(input_tensor, batch_size, input_height, input_width, in_channels)
    bias = None if bias_tensor is None else bias_tensor.reshape(-1)[:out_channels]
    output = functional.conv2d(_pad(image, padding), weight_tensor, bias, tuple(stride), 0, tuple(dilation), groups)
    return _to_flat(activate(output, getattr(conv_config, "activation", None)))


# TTNN's golden can't take prepared weights.
@reference("ttnn.conv_transpose2d")
def conv_transpose2d(
    *,
    input_tensor: Tensor,
    weight_tensor: Tensor,
    in_channels: int,
    out_channels: int,
    batch_size: int,
    input_height: int,
    input_width: int,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    output_padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
    bias_tensor: Tensor | None = None,
    conv_config: Any = None,
    **_: Any,
) -> Tensor:
    """Weights [in, out / groups, kernel height, kernel width], as given or prepared; bias [1, 1, 1, out]."""
    image = _to_nchw(input_tensor, batch_size, input_height, input_width, in_channels)
    bias = None if bias_tensor is None else bias_tensor.reshape(-1)[:out_channels]
    output = functional.conv_transpose2d(
        image, weight_tensor, bias, tuple(stride), tuple(padding), tuple(output_padding), groups, tuple(dilation)
    )
    return _to_flat(activate(output, getattr(conv_config, "activation", None)))


def _pooled(image: Tensor, result: Any) -> Tensor:
    """An image as TTNN gives it: flattened, or where it pools in slices in DRAM, [batch, height, width, channels]."""
    flat = _to_flat(image)
    apart = (image.shape[0], *image.shape[2:], image.shape[1])
    return flat.reshape(apart) if result is not None and tuple(result.shape) == apart else flat


# TTNN's golden imports a module of TTNN's tests, which its wheel doesn't ship; so do those of the other pools.
@reference("ttnn.max_pool2d")
def max_pool2d(
    input_tensor: Tensor,
    batch_size: int,
    input_h: int,
    input_w: int,
    channels: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
    *,
    result: Any = None,
    **_: Any,
) -> Tensor:
    image = _to_nchw(input_tensor, batch_size, input_h, input_w, channels)
    output = functional.max_pool2d(image, tuple(kernel_size), tuple(stride), tuple(padding), tuple(dilation), ceil_mode)
    return _pooled(output, result)


@reference("ttnn.avg_pool2d")
def avg_pool2d(
    input_tensor: Tensor,
    batch_size: int,
    input_h: int,
    input_w: int,
    channels: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    result: Any = None,
    **_: Any,
) -> Tensor:
    image = _to_nchw(input_tensor, batch_size, input_h, input_w, channels)
    output = functional.avg_pool2d(
        image, tuple(kernel_size), tuple(stride), tuple(padding), ceil_mode, count_include_pad, divisor_override
    )
    return _pooled(output, result)
