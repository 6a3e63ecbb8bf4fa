"""Results lie in memory as eager torch's do, also where torch's fake tensors lie otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import check

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


def transposed(*shape: int) -> torch.Tensor:
    """Lies in the opposite order of its dimensions."""
    return torch.rand(tuple(reversed(shape))).permute(*reversed(range(len(shape)))) + 0.5


def channels_last(*shape: int) -> torch.Tensor:
    return torch.rand(shape).to(memory_format=torch.channels_last)


CASES: dict[str, tuple[Callable[..., Any], Callable[[], list[torch.Tensor]]]] = {
    "roll": (lambda x: torch.roll(x, 1, 1), lambda: [channels_last(2, 8, 4, 4)]),
    "roll of a transpose": (lambda x: torch.roll(x, 1, 1), lambda: [transposed(2, 8, 4)]),
    "roll along two": (lambda x: torch.roll(x, (1, 2), (2, 3)), lambda: [channels_last(2, 8, 4, 4)]),
    "roll of everything": (lambda x: torch.roll(x, 3), lambda: [channels_last(2, 8, 4, 4)]),
    "log sigmoid": (F.logsigmoid, lambda: [transposed(2, 3)]),
    "roll of a sum": (lambda x: torch.roll(x + 1, 1, 1) * 2, lambda: [channels_last(2, 8, 4, 4)]),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), lambda: [channels_last(2, 8, 4, 4)]),
    "channel_shuffle, then more": (lambda x: F.channel_shuffle(x, 4).relu(), lambda: [channels_last(2, 8, 4, 4)]),
    "copysign": (torch.copysign, lambda: [transposed(5, 6), torch.rand(5, 6)]),
    "copysign, the other way": (torch.copysign, lambda: [torch.rand(5, 6), transposed(5, 6)]),
    "addr": (lambda a, b: torch.addr(a, b[:, 0], b[0]), lambda: [transposed(5, 6), torch.rand(5, 6)]),
    "addr of nothing": (
        lambda a, b: torch.addr(a, b[:, 0], b[0], beta=0.0), lambda: [transposed(5, 6), torch.rand(5, 6)],
    ),
    "a sum with one element": (lambda x: x.permute(0, 2, 1) + 1, lambda: [torch.rand(64, 32, 1)]),
    "a product with one element": (lambda x: x.permute(0, 2, 1) * x.mT, lambda: [torch.rand(64, 32, 1)]),
    "a comparison with one element": (lambda x: x.permute(0, 2, 1) > 0.5, lambda: [torch.rand(64, 32, 1)]),
    "xlogy": (torch.xlogy, lambda: [transposed(3, 4, 5), torch.rand(4, 5) + 0.5]),
    "xlog1py": (torch.special.xlog1py, lambda: [transposed(3, 4, 5), torch.rand(4, 5) + 0.5]),
    "a floored quotient": (
        lambda x, y: torch.div(x, y, rounding_mode="floor"), lambda: [transposed(4, 5), torch.tensor(0.3)],
    ),
    "batch_norm in training": (
        lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4), training=True), lambda: [transposed(3, 4, 5)],
    ),
    "a choice": (lambda x, y: torch.where(x > 1, x, y), lambda: [transposed(4, 5), torch.rand(4, 5)]),
    "heaviside": (torch.heaviside, lambda: [transposed(4, 5), torch.rand(4, 5)]),
    "ldexp": (lambda x, y: torch.ldexp(x, y), lambda: [transposed(4, 5), torch.rand(4, 5)]),
    "a loss": (lambda x, y: F.mse_loss(x, y, reduction="none"), lambda: [transposed(4, 5), torch.rand(4, 5)]),
    "a masked fill": (lambda x, y: x.masked_fill(y > 0.5, 0.0), lambda: [transposed(4, 5), torch.rand(4, 5)]),
    "glu": (lambda x: F.glu(x, 1), lambda: [channels_last(2, 8, 4, 4)]),
    "rows that repeat": (lambda x, y: x + y, lambda: [torch.rand(5).expand(4, 5), transposed(4, 5)]),
    "nothing": (lambda x: torch.tanh(x) * 2, lambda: [torch.rand(4, 0, 3).mT]),
}  # fmt: skip


@pytest.mark.parametrize("what", CASES)
def test_results_lie_as_in_eager_torch(what: str) -> None:
    check(*CASES[what])
