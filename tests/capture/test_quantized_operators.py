"""Quantize and dequantize operators mean what torch computes, and run on the device as arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.ao.quantization.fx._decomposed
from comparison import assert_same, check

from tt_dynamo.capture.quantized import quantized_decompositions

library = torch.ops.quantized_decomposed
BYTES = (-128, 127, torch.int8)
INTEGERS = torch.randint(-128, 128, (6, 64), dtype=torch.int8, generator=torch.Generator().manual_seed(0))


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


SCALES, POINTS = randn(6).abs() / 20 + 0.01, torch.arange(6) - 3
TENSORS = torch.tensor(0.03), torch.tensor(5)
CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "to int8": (library.quantize_per_tensor.default, (randn(6, 64), 0.02, 3, *BYTES)),
    "to uint8, of bfloat16": (
        library.quantize_per_tensor.default, (randn(6, 64).bfloat16(), 0.02, 99, 0, 255, torch.uint8),
    ),
    "by a scale in a tensor": (library.quantize_per_tensor.tensor, (randn(6, 64), *TENSORS, *BYTES)),
    "by a scale in a tensor with a dimension": (
        library.quantize_per_tensor.tensor, (randn(6, 64), torch.tensor([0.03]).double(), torch.tensor([5]), *BYTES),
    ),
    "from int8": (library.dequantize_per_tensor.default, (INTEGERS, 0.02, 3, *BYTES)),
    "from a scale in a tensor": (library.dequantize_per_tensor.tensor, (INTEGERS, *TENSORS, *BYTES)),
    "to int8 by channels": (library.quantize_per_channel.default, (randn(6, 64), SCALES, POINTS, 0, *BYTES)),
    "by channels that are not first": (
        library.quantize_per_channel.default, (randn(2, 6, 5), SCALES, POINTS, 1, *BYTES),
    ),
    "from channels": (library.dequantize_per_channel.default, (INTEGERS, SCALES, POINTS, 0, *BYTES)),
    "from channels without zero points": (library.dequantize_per_channel.default, (INTEGERS, SCALES, None, 0, *BYTES)),
    "to int8 by tokens": (library.quantize_per_token.default, (randn(6, 64), SCALES[:, None], POINTS[:, None], *BYTES)),
    "from tokens": (
        library.dequantize_per_token.default,
        (INTEGERS, SCALES[:, None], POINTS[:, None], *BYTES, torch.float32),
    ),
    "from groups": (
        library.dequantize_per_channel_group.default,
        (INTEGERS, randn(6, 2), POINTS.repeat(2).view(6, 2), *BYTES, 32, torch.float32),
    ),
    "from groups longer than a row": (
        library.dequantize_per_channel_group.default, (INTEGERS, randn(6, 1), None, *BYTES, 128, torch.float32),
    ),
    "there and back": (
        torch.ops.aten.fake_quantize_per_tensor_affine_cachemask.default, (randn(6, 64), 0.01, 3, -128, 127),
    ),
    "there and back by channels": (
        torch.ops.aten.fake_quantize_per_channel_affine_cachemask.default,
        (randn(6, 64), SCALES / 10, POINTS.int(), 0, -128, 127),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_means_what_torch_computes(case: str) -> None:
    operator, given = CASES[case]
    assert_same(quantized_decompositions()[operator](*given), operator(*given))


@pytest.mark.usefixtures("clean_dynamo", "board_device")
@pytest.mark.parametrize("kind", ["per tensor", "per channel"])
def test_a_linear_between_quantized_values_runs_on_the_device(kind: str) -> None:
    model = Quantized(kind == "per channel")
    (report,) = check(model, lambda: (torch.randn(32, 64),))
    assert report.fallbacks == []
    assert report.launches.get("ttnn.trunc", 0) == 0


@pytest.mark.usefixtures("clean_dynamo", "board_device")
def test_training_with_fakes_has_eager_s_gradients() -> None:
    def fake(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.relu(torch.fake_quantize_per_tensor_affine(x, 1 / 64, 0, -64, 63)) * 2

    # halves of steps are rounded to either side by bfloat16, so none is near
    make: Callable[[], Any] = lambda: ((torch.randint(-99, 99, (32, 64)) / 64).requires_grad_(),)  # noqa: E731
    check(fake, make, backward=True)


class Quantized(torch.nn.Module):
    """x [rows, 64] and a weight of int8, rounded before they are multiplied. Steps are powers of two, as all values."""

    def __init__(self, by_channel: bool) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 128, (32, 64), dtype=torch.int8))
        self.register_buffer("scales", torch.full((32,), 1 / 64))
        self.register_buffer("points", torch.zeros(32, dtype=torch.int64))
        self.by_channel = by_channel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rounded = library.quantize_per_tensor(x, 1 / 32, 3, 0, 255, torch.uint8)
        rounded = library.dequantize_per_tensor(rounded, 1 / 32, 3, 0, 255, torch.uint8)
        if self.by_channel:
            weight = library.dequantize_per_channel(self.weight, self.scales, self.points, 0, *BYTES)
        else:
            weight = library.dequantize_per_tensor(self.weight, 1 / 64, 0, *BYTES)
        return torch.nn.functional.linear(rounded, weight)
