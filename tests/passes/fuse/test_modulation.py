"""Modulations of diffusion transformers: tables and embeddings cut apart, ones and scales in weights, gates in sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captured import Captured, Module, capture, random
from torch import nn

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.gates import fuse_gates
from tt_dynamo.passes.fuse.linears import split_linears
from tt_dynamo.passes.fuse.modulation import split_modulations
from tt_dynamo.passes.fuse.scales import fold_offsets, fold_scales
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.rewrite import is_constant

ADD, MUL, SLICES = aten.add.Tensor, aten.mul.Tensor, (aten.slice.Tensor, aten.split.Tensor, aten.unbind.int)


def captured(forward: Callable[..., Any], *inputs: torch.Tensor, parts: tuple[Any, ...]) -> Captured:
    graph = capture(Module(*parts, forward=forward), *inputs)
    graph.apply(canonicalize, exact=False)
    return graph


CUTS: dict[str, Callable[[torch.Tensor], Any]] = {
    "chunk": lambda total: total.chunk(3, 1),
    "unbind": lambda total: [part[:, None] for part in total.unbind(1)],
    "slices": lambda total: (total[:, :1], total[:, 1:2], total[:, 2:]),
}


@pytest.mark.parametrize("cut", CUTS)
def test_parts_of_a_table_and_of_an_embedding_are_added_one_by_one(cut: str) -> None:
    def forward(self: Any, x: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
        for table in (self.p0, self.p1):
            shift, scale, gate = CUTS[cut](table[None] + embedded.reshape(2, 3, 32))
            x = x + gate * (x * (1 + scale) + shift)
        return x

    tables = [nn.Parameter(torch.randn(3, 32)) for _ in range(2)]
    graph = captured(forward, random(2, 5, 32), random(2, 96), parts=tuple(tables))
    assert graph.apply(split_modulations, exact=False) > 0
    made = [node for node in graph.calls(*SLICES) if not is_constant(node)]
    assert len({str(node.args) for node in made}) == len(made) <= 3  # the embedding is cut once for both blocks
    sums = [node for node in graph.calls(ADD) if not is_constant(node) and node.meta["val"].numel() == 64]
    # Of a part with a constant, to which the one has been added, unless a move stands between.
    assert len(sums) == (8 if cut == "unbind" else 6)


@pytest.mark.parametrize(
    "total",
    [
        lambda self, y: self.p0[None] + y[:, :1],  # broadcast: a part of it is another
        lambda self, y: torch.add(self.p0[None], y, alpha=2),
        lambda self, y: y + y,
    ],
)
def test_other_sums_are_cut_as_they_are(total: Callable[..., torch.Tensor]) -> None:
    def forward(self: Any, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return total(self, y).chunk(3, 1)

    graph = captured(forward, random(2, 3, 32), parts=(nn.Parameter(torch.randn(3, 32)),))
    assert graph.apply(split_modulations) == 0


def test_a_sum_that_something_else_reads_stays_whole() -> None:
    def forward(self: Any, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        total = self.p0[None] + y
        return *total.chunk(3, 1), torch.exp(total)

    graph = captured(forward, random(2, 3, 32), parts=(nn.Parameter(torch.randn(3, 32)),))
    assert graph.apply(split_modulations) == 0


def test_one_plus_a_part_of_a_linear_goes_into_its_bias() -> None:
    def forward(self: Any, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        shift, scale = self.p0(condition).chunk(2, -1)
        return x * (1 + scale[:, None]) + shift[:, None]

    graph = captured(forward, random(2, 5, 32), random(2, 16), parts=(nn.Linear(16, 64),))
    assert graph.apply(split_linears, fold_offsets, exact=False) == 1
    assert sorted(is_constant(node) for node in graph.calls(ADD)) == [False, True]


@pytest.mark.parametrize("case", ["an activation", "two readers"])
def test_a_number_stays_where_the_bias_cannot_take_it(case: str) -> None:
    def forward(self: Any, x: torch.Tensor) -> Any:
        y = self.p0(x)
        if case == "an activation":
            y = torch.relu(y)
        return (1 + y, y) if case == "two readers" else 1 + y

    graph = captured(forward, random(2, 16), parts=(nn.Linear(16, 64),))
    assert graph.apply(fold_offsets) == 0


@pytest.mark.parametrize("bias", [True, False])
def test_a_vector_of_parameters_goes_into_the_columns_of_a_linear(bias: bool) -> None:
    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return x + self.p1 * self.p0(x)

    parts = nn.Linear(32, 32, bias=bias), nn.Parameter(torch.randn(32))
    graph = captured(forward, random(2, 5, 32), parts=parts)
    assert graph.apply(fold_scales, exact=False) == 1
    assert all(is_constant(node) for node in graph.calls(MUL))
    assert len(graph.only(operators.linear).args) == 2 + bias


OTHERS: dict[str, tuple[int, Callable[..., torch.Tensor]]] = {
    "along the rows": (5, lambda self, x: self.p1[:, None] * self.p0(x)),
    "no parameter": (32, lambda self, x: x[:, :1] * self.p0(x)),
    "columns in another order": (32, lambda self, x: self.p1 * self.p0(x).unflatten(-1, (4, 8)).mT.flatten(2)),
    "moved columns": (40, lambda self, x: self.p1 * self.p0(x).reshape(2, 5, 4, 8).transpose(1, 2).flatten(2)),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_does_not_scale_columns_by_parameters_stays(case: str) -> None:
    size, forward = OTHERS[case]
    graph = captured(forward, random(2, 5, 32), parts=(nn.Linear(32, 32), nn.Parameter(torch.randn(size))))
    assert graph.apply(fold_scales) == 0


SUMS: dict[str, tuple[int, Callable[..., torch.Tensor]]] = {
    "a gate": (1, lambda self, x, y, v: x + v[:, None] * y),
    "scale and shift": (1, lambda self, x, y, v: x * v[:, None] + y[:, :1]),
    "three activations": (0, lambda self, x, y, v: x + y * x),
    "an outer product": (1, lambda self, x, y, v: x + y[:, :1] * x[..., :1]),
    "a product with another reader": (0, lambda self, x, y, v: (x + (z := v[:, None] * y)) @ z.mT),
}


@pytest.mark.parametrize("case", SUMS)
def test_a_sum_with_a_product_by_a_vector_is_one_call(case: str) -> None:
    count, forward = SUMS[case]
    graph = captured(forward, random(2, 5, 32), random(2, 5, 32), random(2, 32), parts=())
    assert graph.apply(fuse_gates, exact=False) == count
    assert len(graph.calls(aten.addcmul.default)) == count


GATED: dict[str, tuple[int, int, Callable[..., torch.Tensor]]] = {
    "one image": (1, 1, lambda self, x, y, v: x + v[:, None] * self.p0(y)),
    "one image, from the other side": (1, 1, lambda self, x, y, v: self.p0(y) * v[:, None] + x),
    "two images": (2, 0, lambda self, x, y, v: x + v[:, None] * self.p0(y)),
    "an activation between": (1, 0, lambda self, x, y, v: x + v[:, None] * torch.relu(self.p0(y))),
    "another reader": (1, 0, lambda self, x, y, v: x + v[:, None] * (z := self.p0(y)) + torch.exp(z)),
}


@pytest.mark.parametrize("case", GATED)
def test_a_linear_takes_in_the_gate_of_one_image(case: str) -> None:
    batch, count, forward = GATED[case]
    inputs = random(batch, 5, 32), random(batch, 5, 16), random(batch, 32)
    graph = captured(forward, *inputs, parts=(nn.Linear(16, 32),))
    assert graph.apply(fuse_gates, exact=False) > 0
    assert len(graph.calls(operators.linear_addcmul)) == count
