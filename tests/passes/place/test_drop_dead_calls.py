"""What nothing reads is not in a program, and what writes where something reads stays."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch.fx import Graph, Node

import tt_dynamo
from tt_dynamo.ir.errors import Refused
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.spec import Spec
from tt_dynamo.lowering.images import pools as pooling
from tt_dynamo.passes.place.deallocations import drop_dead_calls

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
SPEC = Spec((32, 32), "bfloat16", "TILE")


def operation(*operands: Any) -> None:
    """Stands for any TTNN call."""


class Program:
    """A program graph by hand with one input on the host and one state on the device."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.x = self.graph.placeholder("x")
        self.cache = self.graph.placeholder("cache")
        self.cache.meta.update(ttnn=SPEC, state=True)

    def call(self, name: str, *operands: Node, alias: Node | None = None) -> Node:
        node = self.graph.create_node("call_function", operation, operands, name=name)
        node.meta.update(ttnn=SPEC, alias=alias, path=f"ttnn.{name}")
        return node

    def left(self, *outputs: Node) -> list[str]:
        self.graph.output(outputs)
        before = len(self.graph.nodes)
        dropped = drop_dead_calls(self.graph)
        self.graph.lint()
        assert before - dropped == len(self.graph.nodes)
        return [node.name for node in self.graph.nodes if node.op == "call_function"]


def test_chains_that_nothing_reads_go_with_their_views() -> None:
    program = Program()
    y = program.call("relu", program.x)
    view = program.call("reshape", y, alias=y)
    program.call("add", view, program.cache)
    assert program.left(program.call("exp", program.x)) == ["exp"]


def test_a_write_into_a_state_stays() -> None:
    program = Program()
    program.call("update_cache", program.cache, program.x, alias=program.cache)
    assert program.left(program.x) == ["update_cache"]


@pytest.mark.parametrize("through_view", [False, True])
def test_a_write_stays_where_its_buffer_is_read_afterwards(through_view: bool) -> None:
    program = Program()
    y = program.call("relu", program.x)
    target = program.call("reshape", y, alias=y) if through_view else y
    program.call("fill", target, alias=target)
    assert "fill" in program.left(program.call("exp", y))


def test_a_write_goes_where_its_buffer_was_read_before_alone() -> None:
    program = Program()
    y = program.call("relu", program.x)
    z = program.call("exp", y)
    program.call("fill", y, alias=y)
    assert program.left(z) == ["relu", "exp"]


def test_frees_writes_and_random_numbers_of_the_host_stay() -> None:
    program = Program()
    y = program.call("relu", program.x)
    program.call("deallocate", y)
    program.graph.call_function(aten.copy_.default, (program.x, program.x))
    program.graph.call_function(aten.rand_like.default, (program.x,))
    program.graph.call_function(aten.exp.default, (program.x,))
    assert program.left() == ["relu", "deallocate", "copy__default", "rand_like_default"]


def compiled(model: Any, *inputs: torch.Tensor) -> tuple[Any, tt_dynamo.GraphReport]:
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        got = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD})(*inputs)
    assert not reports[0].fallbacks
    return got, reports[0]


@pytest.mark.parametrize(("model", "call"), [(torch.var_mean, "ttnn.mean"), (torch.std_mean, "ttnn.mean")])
def test_a_result_that_nothing_reads_is_not_computed(model: Any, call: str) -> None:
    x = torch.randn(4, 64)
    got, report = compiled(lambda x: model(x, -1)[0], x)
    assert call not in report.launches
    torch.testing.assert_close(got, model(x, -1)[0], rtol=0.02, atol=0.02)


def test_what_was_called_before_a_refused_step_is_not_in_the_program() -> None:
    flat, refusals = pooling.flat_pixels, [Refused("ttnn.reshape: no")]

    def flat_once_refused(ttnn: Any, pooled: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return flat(ttnn, pooled)

    with mock.patch.object(pooling, "flat_pixels", flat_once_refused):
        got, report = compiled(lambda x: F.max_pool2d(x, 2), x := torch.randn(1, 32, 16, 16))
    assert not refusals and report.code.count("ttnn.max_pool2d(") == 1
    torch.testing.assert_close(got, F.max_pool2d(x, 2), rtol=0.02, atol=0.02)
