"""Every buffer is freed once, after the last use of every alias of it; weights and outputs never."""

import os
import re
from unittest import mock

import pytest
import torch
from torch.fx import Graph

import tt_dynamo
import tt_dynamo.compiler.compile
from tt_dynamo.devices import EmulationError, open_device
from tt_dynamo.ir.spec import Spec
from tt_dynamo.passes.place.deallocations import insert_deallocations
from tt_dynamo.runtime.program import load

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")
SPEC = Spec((32, 32), "bfloat16", "TILE")


def operation(*operands):
    """Stands for any TTNN call."""


class Program:
    """A program graph by hand: `call` makes a value on the device, `host` one on the host."""

    def __init__(self):
        self.graph = Graph()

    def call(self, name, *operands, alias=None):
        node = self.graph.create_node("call_function", operation, operands, name=name)
        node.meta.update({"ttnn": SPEC, "alias": alias})
        return node

    def host(self, name, *operands):
        return self.graph.create_node("call_function", operation, operands, name=name)

    def weight(self, name):
        node = self.graph.placeholder(name)
        node.meta.update({"ttnn": SPEC, "weight": True})
        return node

    def freed(self, *outputs):
        """(what is freed, after which node) in order, once the pass has run."""
        self.graph.output(outputs)
        count = insert_deallocations(self.graph)
        self.graph.lint()
        frees = [node for node in self.graph.nodes if node.op == "call_method"]
        assert len(frees) == count and all(node.target == "deallocate" for node in frees)
        return [(node.args[0].name, self._before(node)) for node in frees]

    @staticmethod
    def _before(node):
        node = node.prev
        while node.op == "call_method":
            node = node.prev
        return node.name


@pytest.fixture
def program():
    return Program()


def test_a_buffer_is_freed_after_its_last_use(program):
    x = program.call("x")
    y = program.call("y", x)
    z = program.call("z", x, y)
    out = program.host("out", z)
    assert sorted(program.freed(out)) == [("x", "z"), ("y", "z"), ("z", "out")]


def test_a_buffer_is_not_freed_before_the_last_use_of_its_view(program):
    x = program.call("x")
    view = program.call("view", x, alias=x)
    y = program.call("y", x)
    z = program.call("z", view, y)
    out = program.host("out", z)
    assert sorted(program.freed(out)) == [("view", "z"), ("y", "z"), ("z", "out")]


def test_a_view_is_not_freed_under_its_base(program):
    x = program.call("x")
    view = program.call("view", x, alias=x)
    y = program.call("y", view)
    z = program.call("z", x, y)
    out = program.host("out", z)
    assert sorted(program.freed(out)) == [("x", "z"), ("y", "z"), ("z", "out")]


def test_a_view_of_a_view_is_of_the_same_buffer(program):
    x = program.call("x")
    first = program.call("first", x, alias=x)
    second = program.call("second", first, alias=first)
    y = program.call("y", second)
    out = program.host("out", y, x)
    assert sorted(program.freed(out)) == [("x", "out"), ("y", "out")]


def test_a_buffer_is_freed_once_however_many_views_it_has(program):
    x = program.call("x")
    views = [program.call(f"view_{i}", x, alias=x) for i in range(3)]
    out = program.host("out", *views)
    assert len(program.freed(out)) == 1


def test_weights_are_never_freed(program):
    w = program.weight("w")
    view = program.call("view", w, alias=w)
    y = program.call("y", w, view)
    out = program.host("out", y)
    assert program.freed(out) == [("y", "out")]


def test_outputs_and_what_shares_their_buffer_are_never_freed(program):
    x = program.call("x")
    view = program.call("view", x, alias=x)
    y = program.call("y", x)
    assert program.freed(view, y) == []


def test_what_nothing_reads_is_not_freed(program):
    x = program.call("x")
    program.call("unread", x, alias=x)
    assert program.freed() == []


def test_values_of_the_host_are_not_freed(program):
    x = program.host("x")
    out = program.host("out", x)
    assert program.freed(out) == []


def test_parts_of_a_result_are_freed_each(program):
    x = program.call("x")
    whole = program.host("whole", x)
    parts = [program.call(f"part_{i}", whole) for i in range(2)]
    outs = [program.host(f"out_{i}", part) for i, part in enumerate(parts)]
    assert sorted(program.freed(*outs)) == [("part_0", "out_0"), ("part_1", "out_1"), ("x", "whole")]


# --- on the emulated device -----------------------------------------------------------------------------------------


def with_views(x, w):
    """A program in which a base outlives its view, and a view its base."""
    x = torch.relu(x)
    rows = x.reshape(64, 32)
    y = torch.tanh(rows)
    z = (x + 1.0).reshape(64, 32)
    return y * z + x.reshape(64, 32), torch.exp(rows) * w


def unaware(graph):
    for node in graph.nodes:
        node.meta.pop("alias", None)
    return insert_deallocations(graph)


def forced(source):
    """The program with TTNN's forced deallocation, which frees under the feet of views, in place of the cautious."""
    text, count = re.subn(r"^( +)(\w+) = None$", r"\1ttnn.deallocate(\2); \2 = None", source, flags=re.MULTILINE)
    assert count
    return text


def run(deallocate):
    """Compile `with_views` with a deallocation pass, then run its program with every deallocation forced."""
    inputs = [torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0)), torch.full((64, 32), 0.5)]
    torch._dynamo.reset()
    patch = mock.patch.object(tt_dynamo.compiler.compile, "insert_deallocations", deallocate)
    with patch, tt_dynamo.record() as reports, torch.no_grad():
        torch.compile(with_views, backend="ttnn", dynamic=False, options={"device": BOARD})(*inputs)
    device = open_device(BOARD)
    outputs = load(forced(reports[0].code), device.namespace())(device.handle, *inputs)
    for output, expected in zip(outputs, with_views(*inputs), strict=True):
        torch.testing.assert_close(output, expected, rtol=0.02, atol=0.02)


def test_forced_deallocation_frees_nothing_that_is_still_read():
    run(insert_deallocations)


def test_the_emulated_device_catches_a_pass_that_knows_no_aliases():
    with pytest.raises(EmulationError, match="freed memory"):
        run(unaware)
