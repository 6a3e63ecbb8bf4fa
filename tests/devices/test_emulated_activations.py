"""GELU from TTNN's table: the lines that the vector unit has as numbers of 16 bits, and where they are taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from tt_dynamo.devices.emulation.activations import activate, gelu_from_table

# The two halves of each register of a table of six entries, as the kernel loads them, the lower half first.
# Source: tt-llk, ckernel_sfpu_gelu.h; SFPLUTFP32.md of the ISA documentation says what the bits mean.
SLOPES = (0x322B, 0x37E7, 0x38F3, 0x38E1, 0x3852, 0x3800)
OFFSETS = (0x86D8, 0xB122, 0xB479, 0xB437, 0xAFA4, 0x7C00)
BEGINS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)


def number(bits: int) -> float:
    """What 16 bits of the table stand for: there is no infinity, and the largest exponent means 0."""
    sign, exponent, mantissa = bits >> 15, bits >> 10 & 31, bits & 1023
    return (-1) ** sign * (0.0 if exponent == 31 else (1 + mantissa / 1024) * 2.0 ** (exponent - 15))


@pytest.mark.parametrize("line", range(6))
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_each_line_of_the_table_is_what_its_registers_hold(line: int, sign: float) -> None:
    for beyond in (0.0, 0.125, 0.375):
        x = sign * (BEGINS[line] + beyond)
        expected = x / 2 + number(SLOPES[line]) * abs(x) + number(OFFSETS[line])
        assert float(gelu_from_table(torch.tensor([x]))[0]) == pytest.approx(expected, abs=2e-7)


def test_the_table_is_within_0_0235_of_gelu() -> None:
    x = torch.linspace(-8, 8, 100_001)
    error = (gelu_from_table(x) - functional.gelu(x)).abs()
    assert 0.0233 < float(error.max()) < 0.0235


def test_only_the_parameter_1_of_gelu_asks_for_the_table(ttnn: Any) -> None:
    x = torch.linspace(-2, 2, 9)
    gelu = ttnn.UnaryOpType.GELU
    assert torch.equal(activate(x, ttnn.UnaryWithParam(gelu, 1.0)), gelu_from_table(x))
    for exact in (ttnn.UnaryWithParam(gelu, 0.0), gelu):
        assert torch.allclose(activate(x, exact), functional.gelu(x))
    assert torch.equal(activate(x, None), x)


def test_a_product_takes_gelu_from_the_table(ttnn: Any, emulated: Any, upload: Callable[..., Any]) -> None:
    x = torch.linspace(-4, 4, 1024).reshape(32, 32).bfloat16().float()
    activation = ttnn.UnaryWithParam(ttnn.UnaryOpType.GELU, 1.0)
    ours = emulated.to_torch(emulated.linear(upload(x), upload(torch.eye(32)), activation=activation))
    assert torch.equal(ours, gelu_from_table(x).bfloat16())


def test_operands_go_through_all_of_their_activations(ttnn: Any, emulated: Any, upload: Callable[..., Any]) -> None:
    x = torch.linspace(-8, 8, 64).reshape(2, 32).bfloat16().float()
    steps = [ttnn.UnaryWithParam(getattr(ttnn.UnaryOpType, name)) for name in ("ABS", "NEG", "EXP", "LOG1P")]
    relu = [ttnn.UnaryWithParam(ttnn.UnaryOpType.RELU)]
    found = emulated.add(upload(x), upload(x), input_tensor_a_activations=relu, input_tensor_b_activations=steps)
    torch.testing.assert_close(found.value, functional.softplus(x), rtol=2.0**-8, atol=0)


def test_a_number_may_be_added_to_an_operand() -> None:
    ttnn = pytest.importorskip("ttnn")
    plus = ttnn.UnaryWithParam(ttnn.UnaryOpType.ADD_UNARY_SFPU, 0.5)
    assert activate(torch.tensor([1.0, -2.0]), plus).tolist() == [1.5, -1.5]
