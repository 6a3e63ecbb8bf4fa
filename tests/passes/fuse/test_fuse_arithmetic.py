"""Products take the activation of an operand, and sums take their scale."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.passes.fuse.epilogues import fuse_arithmetic

Tensor = torch.Tensor
SHAPE = (2, 6, 32)


@pytest.mark.parametrize(("name", "activation"), [("silu", F.silu), ("relu", F.relu)])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_product_takes_the_activation_of_an_operand(name: str, activation: Callable, is_first: bool) -> None:
    def gate(x: Tensor, y: Tensor) -> Tensor:
        return activation(x) * y if is_first else y * activation(x)

    graph = capture(gate, random(*SHAPE), random(*SHAPE))
    assert graph.apply(fuse_arithmetic) == 1
    assert graph.only(operators.activated_product).args[2] == name


@pytest.mark.parametrize(
    ("forward", "scale"),
    [
        (lambda x, y: (x + y) / 2**0.5, 0.5**0.5),
        (lambda x, y: 0.25 * (x + y), 0.25),
        (lambda x, y: (x + y) * -3, -3.0),
    ],
)
def test_a_sum_takes_its_scale(forward: Callable[..., Tensor], scale: float) -> None:
    graph = capture(forward, random(*SHAPE), random(*SHAPE))
    assert graph.apply(fuse_arithmetic, exact=False) == 1
    assert graph.only(operators.scaled_sum).args[2] == pytest.approx(scale)


OTHERS: dict[str, Callable[..., object]] = {
    "an activation that is read again": lambda x, y: ((s := F.silu(x)) * y, s.exp()),
    "a gate of one channel": lambda x, y: F.silu(x[..., :1]) * y,
    "another activation": lambda x, y: torch.tanh(x) * y,
    "a sum that is read again": lambda x, y: ((s := x + y) / 2, s.exp()),
    "a sum with alpha": lambda x, y: torch.add(x, y, alpha=2) / 3,
    "a sum with a vector": lambda x, y: (x + y[:1, :1]) / 3,
    "a sum over zero": lambda x, y: (x + y) / 0.0,
    "a scale of each element": lambda x, y: (x + y) * x,
    "positions": lambda x, y: (x[..., :2] + y[..., :2]) / 3,
    "integers": lambda x, y: (x.long() + y.long()) * 3,
    "two dtypes": lambda x, y: (x + y.double()) / 3,
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_products_and_sums_stay(case: str) -> None:
    graph = capture(lambda x, y: OTHERS[case](x, y), random(*SHAPE), random(*SHAPE))
    assert graph.apply(fuse_arithmetic) == 0
    assert not graph.calls(operators.activated_product, operators.scaled_sum)
