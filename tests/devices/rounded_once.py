"""Hold what the emulated device computed against torch."""

from typing import Any

import torch


def check(found: Any, expected: torch.Tensor) -> None:
    """`found`, on the device, is `expected` rounded once."""
    assert tuple(found.shape) == tuple(expected.shape)
    torch.testing.assert_close(found.value.float(), expected.float(), rtol=1 / 256, atol=1e-6)
    if found.dtype.name == "BFLOAT16":
        assert torch.equal(found.value, found.value.bfloat16().float()), "a value that the device dtype can't hold"
