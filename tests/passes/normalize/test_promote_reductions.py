"""Reductions have one spelling each, and say by their dtype whether they count booleans."""

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.normalize.dtypes import promote_operands


@pytest.fixture
def x():
    return random(3, 5)


def respelled(model, *inputs, exact=True):
    """The graph of a model after the pass, and how many places it changed."""
    graph = capture(model, *inputs)
    return graph, graph.apply(promote_operands, exact=exact)


COUNTS = {
    aten.sum.default: lambda b: b.sum(),
    aten.sum.dim_IntList: lambda b: b.sum(1, keepdim=True),
    aten.prod.dim_int: lambda b: b.prod(1),
    aten.cumsum.default: lambda b: b.cumsum(0),
}


@pytest.mark.parametrize("target", COUNTS, ids=str)
def test_a_count_of_booleans_says_so(target, x):
    graph, changed = respelled(COUNTS[target], x > 0)
    assert changed == 1 and graph.only(target).kwargs["dtype"] == torch.int64


def test_a_sum_in_another_float_dtype_is_a_sum_of_such_floats(x):
    graph, changed = respelled(lambda x: aten.sum.dim_IntList(x, [1], dtype=torch.float32), x.bfloat16())
    assert changed == 1 and graph.targets() == [aten._to_copy.default, aten.sum.dim_IntList]
    assert graph.only(aten._to_copy.default).kwargs["dtype"] == torch.float32
    assert not graph.only(aten.sum.dim_IntList).kwargs


def test_floats_summed_as_integers_become_integers_first(x):
    graph, changed = respelled(lambda x: x.sum(dtype=torch.int64), x)
    assert changed == 1 and graph.only(aten._to_copy.default).kwargs["dtype"] == torch.int64
    assert graph.only(aten.sum.default).kwargs["dtype"] == torch.int64


@pytest.mark.parametrize("given", [None, torch.int32, torch.int64])
def test_sums_of_integers_are_left_alone(given):
    graph, changed = respelled(lambda x: x.cumsum(0, dtype=given), torch.arange(5, dtype=torch.int32))
    assert changed == 0


def test_sums_of_floats_are_left_alone(x):
    assert respelled(lambda x: (x.sum(), x.sum(1), x.mean(), x.prod(0), x.cumsum(1)), x)[1] == 0


@pytest.mark.parametrize("name", ["any", "all"])
def test_logic_reads_booleans_only(name, x):
    graph, changed = respelled(lambda x: (getattr(x, name)(1), getattr(x > 0, name)()), x)
    assert changed == 1 and len(graph.calls(aten.ne.Scalar)) == 1


def test_logic_over_bytes_stays_as_it_is():
    assert respelled(lambda x: x.any(), torch.tensor([0, 2], dtype=torch.uint8))[1] == 0


@pytest.mark.parametrize("dim", [(), (1,), ((0, 1),)], ids=str)
def test_what_is_not_zero_is_counted_as_booleans(dim, x):
    graph, changed = respelled(lambda x: x.count_nonzero(*dim), torch.relu(x))
    assert changed == 1 and graph.targets() == [aten.ne.Scalar, aten.sum.dim_IntList]
