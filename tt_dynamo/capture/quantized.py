"""Quantize and dequantize (QDQ) operators, as graphs of torchao's pt2e have them, in ATen operations.

They belong to a library, `quantized_decomposed`, that torch registers when it is first asked for: a graph that holds
one had it registered. Each takes floats to integers of a scale and a zero point, or back. TTNN has neither, but the
arithmetic of both. What dequantizes a weight folds with it; a pair around an activation stays floats throughout
(`passes/normalize/integer_round_trips.py`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)


def quantized_decompositions() -> dict[Any, Callable[..., Any]]:
    """A table for AOTAutograd of those that are registered, and of ATen's that do both at once, as training does."""
    library = torch.ops.quantized_decomposed
    table: dict[Any, Callable[..., Any]] = {
        torch.ops.aten.fake_quantize_per_tensor_affine_cachemask.default: fake_quantize,
        torch.ops.aten.fake_quantize_per_channel_affine_cachemask.default: fake_quantize_per_channel,
    }
    for name, definition in DEFINITIONS.items():
        operator = getattr(library, name, None)
        for overload in operator.overloads() if operator else ():
            table[getattr(operator, overload)] = definition
    return table


def quantize_per_tensor(x: Tensor, scale: Any, zero_point: Any, least: Any, most: Any, dtype: torch.dtype) -> Tensor:
    """x in steps of `scale` from `zero_point` on, within `least` and `most`: numbers, or tensors of one element."""
    scale, zero_point, least, most = map(_number, (scale, zero_point, least, most))
    return torch.clamp(torch.round(_wide(x) * (1.0 / scale)) + zero_point, least, most).to(dtype)


def dequantize_per_tensor(
    x: Tensor, scale: Any, zero_point: Any, least: Any, most: Any, dtype: torch.dtype,
    *, out_dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """What the integers x stand for."""
    return (x.to(out_dtype or torch.float32) - _number(zero_point)) * _number(scale)


def quantize_per_channel(
    x: Tensor, scales: Tensor, zero_points: Tensor, axis: int, least: int, most: int, dtype: torch.dtype
) -> Tensor:
    """As `quantize_per_tensor`, with a scale and a zero point for each index of the dimension `axis`."""
    wide, scales, zero_points = _wide(x), _along(axis, scales, x), _along(axis, zero_points, x)
    return torch.clamp(torch.round(wide * (1.0 / scales)) + zero_points, least, most).to(dtype)


def dequantize_per_channel(
    x: Tensor, scales: Tensor, zero_points: Tensor | None, axis: int, least: int, most: int, dtype: torch.dtype,
    *, out_dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """What the integers x stand for, of a scale for each index of the dimension `axis`."""
    whole = x if zero_points is None else x - _along(axis, zero_points, x)
    return (whole * _along(axis, scales, x)).to(out_dtype or torch.float32)


def quantize_per_token(
    x: Tensor, scales: Tensor, zero_points: Tensor, least: int, most: int, dtype: torch.dtype
) -> Tensor:
    """x [..., width] with scales and zero points [..., 1]; the zero point is added before rounding."""
    return (x * (1.0 / scales) + zero_points).round().clamp(least, most).to(dtype)


def dequantize_per_token(
    x: Tensor, scales: Tensor, zero_points: Tensor, least: int, most: int, dtype: torch.dtype,
    output_dtype: torch.dtype = torch.float32,
) -> Tensor:  # fmt: skip
    """What the integers x [..., width] stand for, of scales and zero points [..., 1]."""
    return ((x - zero_points) * scales).to(output_dtype)


def dequantize_per_channel_group(
    x: Tensor, scales: Tensor, zero_points: Tensor | None, least: int, most: int, dtype: torch.dtype, size: int,
    output_dtype: torch.dtype = torch.float32,
) -> Tensor:  # fmt: skip
    """What the integers x [rows, width] stand for, of a scale for each `size` of a row, or for a shorter row."""
    groups = x.reshape(-1, min(size, x.shape[-1]))
    whole = groups if zero_points is None else groups - zero_points.reshape(-1, 1)
    return (whole * scales.reshape(-1, 1)).reshape(x.shape).to(output_dtype)


def fake_quantize(x: Tensor, scale: Any, zero_point: Any, least: int, most: int) -> tuple[Tensor, Tensor]:
    """x through its integers and back, and which of its elements were within bounds."""
    whole = torch.round(_wide(x) * (1.0 / scale)) + zero_point
    return ((whole.clamp(least, most) - zero_point) * scale).to(x.dtype), (whole >= least) & (whole <= most)


def fake_quantize_per_channel(
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int, least: int, most: int
) -> tuple[Tensor, Tensor]:
    """The same with a scale and a zero point for each index of the dimension `axis`."""
    return fake_quantize(x, _along(axis, scale, x), _along(axis, zero_point, x), least, most)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.float32) if x.dtype in HALVES else x


def _number(value: Any) -> Any:
    """A tensor of one element without dimensions, which promotes nothing, as a number does not."""
    return value.reshape(()) if isinstance(value, Tensor) else value


def _along(axis: int, values: Tensor, x: Tensor) -> Tensor:
    """values [n] as [1, ..., n, ..., 1], to broadcast over x."""
    return values.reshape([-1 if dim == axis % x.ndim else 1 for dim in range(x.ndim)])


DEFINITIONS: dict[str, Callable[..., Tensor]] = {
    function.__name__: function
    for function in (
        quantize_per_tensor, dequantize_per_tensor, quantize_per_channel, dequantize_per_channel,
        quantize_per_token, dequantize_per_token, dequantize_per_channel_group,
    )
}  # fmt: skip
