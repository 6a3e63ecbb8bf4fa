"""Which of two programs is kept: convolutions sharded in the first way that TTNN accepts, or as the estimate says."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import Graph, GraphModule

import tt_dynamo
from tt_dynamo.compiler.shardings import Shardings, total
from tt_dynamo.estimate.chip import Cost
from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.errors import Refused
from tt_dynamo.lowering import registry

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
GAP = 1e-6


def program(convolution: float, other: float = 0.0, launches: int = 1) -> Graph:
    """One of a convolution and another kernel, of so many microseconds."""
    graph = Graph()
    for path, microseconds in (("ttnn.conv2d", convolution), ("ttnn.add", other)):
        node = graph.call_function(torch.add)
        meta.path.set(node, path)
        meta.cost.set(node, Cost(microseconds * 1e-6, "compute", 0.5, "", launches if path == "ttnn.conv2d" else 1))
    return graph


@pytest.fixture
def module() -> GraphModule:
    """An original graph of two convolutions, the first of which gives block shards."""
    graph = Graph()
    x = graph.placeholder("x")
    for block_sharded in (True, False):
        x = graph.call_function(operators.conv2d, (x,), {"block_sharded": block_sharded})
    graph.output(x)
    return GraphModule(nn.Module(), graph)


def shardings(module: GraphModule, searches: bool = True) -> Shardings:
    settings: Any = SimpleNamespace(searches=searches, chip=SimpleNamespace(launch_gap_seconds=GAP))
    return Shardings(settings, module)


def block_sharded(module: GraphModule) -> list[bool]:
    return [
        node.kwargs["block_sharded"] for node in module.graph.find_nodes(op="call_function", target=operators.conv2d)
    ]


def test_gaps_between_kernels_count_and_views_launch_none() -> None:
    seconds, launches = total(program(10, 0, launches=2).nodes, SimpleNamespace(launch_gap_seconds=GAP))  # type: ignore[arg-type]
    assert launches == 2 and seconds == pytest.approx(12e-6)


@pytest.mark.parametrize(
    "compared, launches, is_kept",
    [(98, 1, True), (100, 1, True), (101, 1, False), (96, 2, False), (93, 2, True)],
    ids=["less time", "the same", "more time", "a launch for little", "a launch for much"],
)
def test_the_program_that_takes_less_time_is_kept(module, compared, launches, is_kept) -> None:
    trying = shardings(module)
    assert not trying.are_compared and trying.ask_for_another(program(100)) and trying.are_compared
    _, second = module.graph.find_nodes(op="call_function", target=operators.conv2d)
    second.update_kwarg("block_sharded", True)
    assert trying.ask_for_another(program(compared, launches=launches)) is not is_kept
    assert trying.are_compared is is_kept and block_sharded(module) == [True, is_kept]
    assert is_kept or not trying.ask_for_another(program(100)), "it ends with the program that it began with"


def test_nothing_is_compared_where_convolutions_take_too_little_or_nothing_is_searched(module) -> None:
    assert not shardings(module).ask_for_another(program(3, other=97))
    assert shardings(module).ask_for_another(program(8, other=92))
    assert not shardings(module, searches=False).ask_for_another(program(100))


def test_an_attempt_that_did_not_compare_is_not_given_up(module) -> None:
    trying = shardings(module)
    assert not trying.give_up() and trying.ask_for_another(program(100))
    assert trying.give_up() and not trying.ask_for_another(program(100))


def test_what_finds_no_room_behind_compared_shardings_is_no_fallback(monkeypatch, clean_dynamo) -> None:
    found, compared = registry.find(operators.max_pool2d), []

    def pool(ttnn: Any, *args: Any) -> Any:
        compared.append(ttnn.compares_shardings)
        if ttnn.compares_shardings:
            raise Refused("ttnn.max_pool2d: Out of Memory: Not enough space to allocate")
        return found.function(ttnn, *args)

    monkeypatch.setitem(
        registry._lowerings, operators.max_pool2d, registry.Lowering(pool, found.needs, found.gives, True)
    )
    model = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2)).eval()
    with tt_dynamo.record() as reports, torch.no_grad():
        torch.compile(model, backend="ttnn", options={"device": BOARD, "dry_run": True})(torch.randn(1, 32, 32, 32))
    assert not reports[0].fallbacks and "ttnn.max_pool2d" in reports[0].code
    assert compared[0] is False and True in compared and compared[-1] is False
