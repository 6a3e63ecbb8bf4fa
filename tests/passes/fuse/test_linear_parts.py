"""Linears of one condition become one product in parts; other linears of one value stay apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captured import Captured, Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.passes.fuse.linear_parts import fuse_linear_parts
from tt_dynamo.passes.fuse.linears import split_linears
from tt_dynamo.passes.fuse.scales import fold_offsets
from tt_dynamo.passes.normalize.canonicalize import canonicalize


def captured(forward: Any, *members: nn.Module, rows: int = 2) -> Captured:
    graph = capture(Module(*members, forward=forward), random(rows, 16))
    graph.apply(canonicalize, exact=False)
    return graph


@pytest.mark.parametrize("bias", [True, False])
def test_a_modulation_is_one_product(bias: bool) -> None:
    def forward(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shift, scale, gate = self.p0(x).chunk(3, -1)
        return shift, 1 + scale, gate

    graph = captured(forward, nn.Linear(16, 96, bias=bias))
    passes = (split_linears, fold_offsets) if bias else (split_linears,)
    assert graph.apply(*passes, fuse_linear_parts, exact=False) == 1
    product = graph.only(operators.linear_parts)
    assert product.args[3] == 3 and (product.args[2] is not None) == bias and not graph.calls(operators.linear)


def test_modulations_of_blocks_are_a_product_for_each_twelve() -> None:
    linears = [nn.Linear(16, 32) for _ in range(15)]

    def forward(self: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(getattr(self, f"p{index}")(x) for index in range(15))

    graph = captured(forward, *linears)
    assert graph.apply(fuse_linear_parts, exact=False) == 2
    assert [product.args[3] for product in graph.calls(operators.linear_parts)] == [12, 3]


OTHERS: dict[str, tuple[int, int, Any]] = {
    "two": (2, 32, lambda self, x: (self.p0(x), self.p1(x))),
    "columns that fill no tile": (2, 24, lambda self, x: (self.p0(x), self.p1(x), self.p2(x))),
    "different inputs": (2, 32, lambda self, x: (self.p0(x), self.p1(2 * x), self.p2(3 * x))),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_linears_stay_apart(case: str) -> None:
    rows, width, forward = OTHERS[case]
    graph = captured(forward, *(nn.Linear(16, width) for _ in range(3)), rows=rows)
    assert graph.apply(fuse_linear_parts) == 0
