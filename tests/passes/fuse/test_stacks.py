"""Streams along the first dimension are mixed by sums, and changed in all parts but one at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.fuse.gates import fuse_gates
from tt_dynamo.passes.fuse.stacks import fuse_stacks
from tt_dynamo.passes.moves.expands import drop_expands
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.moves import normalize_moves

Tensor = torch.Tensor


def mixed(x: Tensor, coefficients: Tensor) -> Tensor:
    return torch.matmul(x.permute(1, 2, 3, 0), coefficients).permute(3, 0, 1, 2) + x


@pytest.mark.parametrize("shape", [(4, 1, 6, 8), (4, 2, 6, 8)], ids=str)
@pytest.mark.parametrize("transposed", [True, False])
def test_streams_are_mixed_without_permutes_of_them(shape: tuple[int, ...], transposed: bool) -> None:
    def mix(x: Tensor, c: Tensor) -> Tensor:
        c = c.reshape(*c.shape[:-1], 4, 4)
        return mixed(x, c.permute(0, 1, 3, 2) if transposed else c)

    graph = capture(mix, random(*shape), random(*shape[1:3], 16))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fuse_stacks, exact=False) == 1
    assert not graph.calls(aten.matmul.default, operators.linear)
    assert all(node.meta["val"].numel() == graph.arguments[1].numel() for node in graph.calls(aten.permute.default))


@pytest.mark.parametrize("transposed", [True, False])
def test_streams_of_one_token_are_mixed_by_one_small_product(transposed: bool) -> None:
    def mix(x: Tensor, c: Tensor) -> Tensor:
        c = c.reshape(1, 1, 4, 4)
        return mixed(x, c.permute(0, 1, 3, 2) if transposed else c)

    graph = capture(mix, random(4, 1, 1, 8), random(1, 1, 16))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fuse_stacks, exact=False) == 1
    matrix, rows, *flags = graph.only(operators.transposed_matmul).args
    assert flags == [not transposed, False] and not graph.calls(aten.permute.default)
    assert (matrix.meta["val"].shape, rows.meta["val"].shape) == ((1, 4, 4), (1, 4, 8))


class Mixed(torch.nn.Module):
    """Streams that are mixed by a linear of what routes them."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.coefficients = torch.nn.Linear(4, 16, bias=bias)

    def forward(self, x: Tensor, route: Tensor) -> Tensor:
        c = self.coefficients(route)
        return mixed(x, c.reshape(*c.shape[:-1], 4, 4).permute(0, 1, 3, 2))


@pytest.mark.parametrize("shape", [(4, 2, 6, 8), (4, 1, 1, 8)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_that_makes_coefficients_adds_the_streams(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    graph = capture(Mixed(bias), random(*shape), random(*shape[1:3], 4))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fuse_stacks, exact=False) == 1
    assert graph.only(operators.linear).args[2] is not None
    assert all(node.args[0].meta["val"].shape == (16,) for node in graph.calls(aten.add.Tensor)), "biases alone"


def test_a_sum_with_other_streams_and_coefficients_that_are_read_again_stay() -> None:
    class Others(Mixed):
        def forward(self, x: Tensor, route: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
            c = self.coefficients(route)
            m = c.reshape(*c.shape[:-1], 4, 4)
            y = torch.matmul(x.permute(1, 2, 3, 0), m.permute(0, 1, 3, 2)).permute(3, 0, 1, 2) + x
            z = torch.matmul(x.permute(1, 2, 3, 0), m.relu()).permute(3, 0, 1, 2) + x.exp()
            return y, z, c

    torch.manual_seed(0)
    graph = capture(Others(), random(4, 2, 6, 8), random(2, 6, 4))
    graph.apply(canonicalize, exact=False)
    graph.apply(fuse_stacks, exact=False)
    assert len(graph.calls(aten.add.Tensor)) == 2 and len(graph.only(operators.linear).args) == 2


@pytest.mark.parametrize(
    ("mix", "shapes"),
    [
        (lambda x, c: mixed(x, c.reshape(1, 6, 8, 8)), ((8, 1, 6, 8), (1, 6, 64))),  # 64 terms a stream
        (lambda x, c: mixed(x, c), ((4, 1, 6, 8), (4, 4))),  # one mix for all tokens
        (lambda x, c: torch.matmul(x.permute(1, 2, 3, 0), c.reshape(1, 6, 4, 4)), ((4, 1, 6, 8), (1, 6, 16))),
    ],
)
def test_other_products_stay(mix: Callable[..., Tensor], shapes: tuple[tuple[int, ...], ...]) -> None:
    graph = capture(mix, *(random(*shape) for shape in shapes))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fuse_stacks) == 0


def test_coefficients_come_before_streams_by_one_permute_and_are_broadcast() -> None:
    def correct(x: Tensor, new: Tensor, c: Tensor) -> Tensor:
        return (new - x[0]).repeat(4, 1, 1, 1) * c.permute(2, 0, 1).unsqueeze(-1) + x

    graph = capture(correct, random(4, 2, 6, 32), random(2, 6, 32), random(2, 6, 4))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fuse_stacks) == 1
    assert graph.apply(drop_expands) == 1
    assert graph.apply(fuse_gates, exact=False) == 1
    assert graph.only(aten.permute.default).args[0].meta["val"].shape == (2, 1, 6, 4)
    assert not graph.calls(aten.repeat.default, aten.mul.Tensor)


def after_first(x: Tensor, y: Tensor) -> Tensor:
    x = x * 2
    x[1:] += y
    return x


def before_last(x: Tensor, y: Tensor) -> Tensor:
    return torch.cat([y + x[:-1], x[-1:]])


@pytest.mark.parametrize("update", [after_first, before_last])
@pytest.mark.parametrize("shape", [(2, 6, 8), (1, 2, 6, 8)], ids=str)
def test_all_parts_but_one_are_changed_by_one_sum(update: Callable[..., Tensor], shape: tuple[int, ...]) -> None:
    graph = capture(update, random(4, 2, 6, 8), random(*shape))
    graph.apply(normalize_moves, canonicalize, exact=False)
    assert graph.apply(fuse_stacks, exact=False) == 1
    assert graph.only(aten.addcmul.default)
    assert not graph.calls(aten.cat.default, aten.slice.Tensor, aten.select.int)


@pytest.mark.parametrize(
    "update",
    [
        lambda x, y: torch.cat([x[:1], x[1:] + y[1:]]),  # each part has a summand of its own
        lambda x, y: torch.cat([x[1:] + y[0], x[:1]]),  # in another order
        lambda x, y: torch.cat([y[:1], x[1:] + y[0]]),  # parts of two stacks
        lambda x, y: torch.cat([x[:1] + y[1], x[1:] + y[0]]),
    ],
)
def test_other_joins_stay(update: Callable[..., Tensor]) -> None:
    graph = capture(update, random(4, 2, 6, 8), random(4, 2, 6, 8))
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fuse_stacks) == 0
