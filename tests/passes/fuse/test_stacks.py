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


@pytest.mark.parametrize("shape", [(4, 1, 6, 8), (4, 2, 6, 8), (4, 1, 1, 8)], ids=str)
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
