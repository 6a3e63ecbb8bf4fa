"""Zeros that stand in a program as numbers: what divides by them is infinity and NaN, as in eager torch."""

import pytest
import torch
import torch.nn.functional as F
from compiled import compiled

X = torch.tensor([0.0, 1.0, -1.0, -0.0, float("inf"), float("nan")]).expand(32, 6)
ZEROS = [0, 0.0, -0.0]

WITH_A_ZERO = {
    "div": lambda x, zero: x / zero,
    "div rounded down": lambda x, zero: torch.div(x, zero, rounding_mode="floor"),
    "div rounded towards zero": lambda x, zero: torch.div(x, zero, rounding_mode="trunc"),
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "mul": lambda x, zero: x * zero,
    "its quotient": lambda x, zero: zero / x,
    "pow": lambda x, zero: x**zero,
    "its powers": lambda x, zero: zero**x,
    "addcdiv": lambda x, zero: torch.addcdiv(x, x, x, value=zero),
    "of a literal": lambda x, zero: x + torch.ones(6) / zero,
    "of a linear": lambda x, zero: F.linear(x, torch.ones(6, 6)) / zero,
    "of heads": lambda x, zero: F.linear(x, torch.ones(6, 6)).view(1, 32, 2, 3).transpose(1, 2) / zero,
    "of scores": lambda x, zero: torch.softmax(x @ x.mT / zero, -1) @ x,
    "of capped scores": lambda x, zero: torch.softmax(torch.tanh(x @ x.mT / zero) * zero, -1) @ x,
    "of a scale": lambda x, zero: F.scaled_dot_product_attention(*[x[None, None]] * 3, scale=zero),
    "in a gelu": lambda x, zero: x * 0.5 * (1 + torch.erf(x / zero)),
    "in a norm": lambda x, zero: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + zero),
    "norm": lambda x, zero: torch.linalg.vector_norm(x, zero, -1),
    "elu": F.elu,
    "softplus": F.softplus,
    "logit": torch.logit,
}


@pytest.mark.parametrize("zero", ZEROS)
@pytest.mark.parametrize("name", WITH_A_ZERO)
def test_a_zero_is_as_in_eager_torch(name, zero):
    output, _ = compiled(WITH_A_ZERO[name], X, zero)
    torch.testing.assert_close(output, WITH_A_ZERO[name](X, zero), rtol=0.02, atol=0.02, equal_nan=True)


@pytest.mark.parametrize("exponent", [-1, -2, -0.5, -1.5])
def test_negative_powers_of_zero_are_infinite(exponent):
    output, _ = compiled(lambda x: x**exponent, X)
    torch.testing.assert_close(output, X**exponent, rtol=0.02, atol=0.02, equal_nan=True)
