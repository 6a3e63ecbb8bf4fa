"""The parts of a modulation table plus an embedding are one product, which takes the ones of the scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captured import Captured, Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.table_parts import fuse_table_parts
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import is_constant

CUTS: dict[str, Callable[[torch.Tensor], Any]] = {
    "chunk": lambda total: total.chunk(3, 1),
    "unbind": lambda total: [part[:, None] for part in total.unbind(1)],
    "slices": lambda total: (total[:, :1], total[:, 1:2], total[:, 2:]),
    "select": lambda total: [total[:, part, None] for part in range(3)],
}


def captured(forward: Callable[..., Any], *inputs: torch.Tensor, width: int = 32) -> Captured:
    tables = [nn.Parameter(torch.randn(3, width)) for _ in range(2)]
    graph = capture(Module(*tables, forward=forward), *inputs)
    graph.apply(canonicalize, exact=False)
    return graph


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("cut", CUTS)
def test_each_table_is_one_product_in_parts(cut: str, images: int) -> None:
    def forward(self: Any, x: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        for table in (self.p0, self.p1):
            shift, scale, gate = CUTS[cut](table[None] + embedded.reshape(images, 3, 32))
            x = x + gate * (x * (1 + scale) + shift)
        return x

    graph = captured(forward, random(images, 5, 32), random(images, 96))
    assert graph.apply(fuse_table_parts, exact=False) == 2
    assert len(graph.calls(operators.linear_parts)) == 2
    sums = [node for node in graph.calls(aten.add.Tensor) if not is_constant(node)]
    assert [tuple(node.meta["val"].shape) for node in sums] == [(images, 5, 32)] * 4, "no scale adds its one"
    assert not graph.calls(aten.split.Tensor, aten.slice.Tensor, aten.unbind.int, aten.select.int)


def test_a_number_that_one_of_two_readers_adds_stays() -> None:
    def forward(self: Any, embedded: torch.Tensor) -> tuple[torch.Tensor, ...]:
        shift, scale, gate = (self.p0[None] + embedded).chunk(3, 1)
        return shift + 2, 1 + scale, scale.exp(), gate

    graph = captured(forward, random(2, 3, 32))
    assert graph.apply(fuse_table_parts, exact=False) == 1
    assert [node.args[1] for node in graph.calls(aten.add.Tensor) if not is_constant(node)] == [1]


OTHERS: dict[str, tuple[tuple[int, ...], Callable[..., Any]]] = {
    "parts that are no whole tiles": ((2, 3, 48), lambda self, y: (self.p0[None] + y).chunk(3, 1)),
    "more images than a tile has rows": ((33, 3, 32), lambda self, y: (self.p0[None] + y).chunk(3, 1)),
    "an embedding that is broadcast": ((2, 1, 32), lambda self, y: (self.p0[None] + y).chunk(3, 1)),
    "parts of two rows": ((2, 3, 32), lambda self, y: (self.p0[None] + y).split(2, 1)),
    "cuts along the width": ((2, 3, 96), lambda self, y: (self.p0[None] + y).chunk(3, 2)),
    "a factor": ((2, 3, 32), lambda self, y: torch.add(self.p0[None], y, alpha=2).chunk(3, 1)),
    "no table": ((2, 3, 32), lambda self, y: (y + y).chunk(3, 1)),
    "another reader": ((2, 3, 32), lambda self, y: (*(z := self.p0[None] + y).chunk(3, 1), z.exp())),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_sums_stay(case: str) -> None:
    shape, forward = OTHERS[case]
    graph = captured(forward, random(*shape), width=shape[-1])
    assert graph.apply(fuse_table_parts) == 0
