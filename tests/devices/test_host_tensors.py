"""What torch writes into a tensor of TTNN on the host is what `ttnn.from_torch` would have put there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tt_dynamo.devices.host_tensors import HostTensor

DTYPES = {
    "bfloat16": torch.bfloat16, "float32": torch.float32, "int32": torch.int32, "uint32": torch.int32,
    "bfloat16 of booleans": torch.bool, "int32 of int64": torch.int64,
}  # fmt: skip


def numbers(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(-200, 200, shape).abs().to(dtype) if dtype != torch.bool else torch.rand(shape) < 0.5


@pytest.mark.parametrize("layout", ["ROW_MAJOR", "TILE"])
@pytest.mark.parametrize(("name", "dtype"), DTYPES.items(), ids=DTYPES)
@pytest.mark.parametrize("shape", [(32, 64), (2, 3, 33, 70), (5,), (1, 1, 1), (2, 64, 7)])
def test_every_byte_is_ttnn_s(ttnn: Any, shape: tuple[int, ...], name: str, dtype: torch.dtype, layout: str) -> None:
    def host(x: torch.Tensor) -> HostTensor:
        options = {"dtype": getattr(ttnn, name.split()[0]), "layout": getattr(ttnn, f"{layout}_LAYOUT")}
        return HostTensor(ttnn, ttnn.from_torch(x, **options))

    tensor = host(numbers(shape, dtype))
    for _ in range(2):
        x = numbers(shape, dtype)
        written = tensor.write(x)
        assert tensor.holds(host(x)) and tensor.takes(x)
        assert torch.equal(ttnn.to_torch(written).float(), x.float())
    assert not tensor.holds(host(~x if dtype == torch.bool else x + 1))


def test_what_torch_would_round_otherwise_is_left_to_ttnn(ttnn: Any) -> None:
    tensor = HostTensor(ttnn, ttnn.from_torch(torch.ones(32, 32), dtype=ttnn.bfloat16, layout=ttnn.TILE_LAYOUT))
    assert not tensor.takes(torch.ones(32, 32)) and not tensor.takes(torch.ones(32, 32, dtype=torch.int64))
    block_float = ttnn.from_torch(torch.ones(32, 32), dtype=ttnn.bfloat8_b, layout=ttnn.TILE_LAYOUT)
    with pytest.raises(TypeError, match="BFLOAT8_B"):
        HostTensor(ttnn, block_float)
