"""Casts inserted where integers meet floats; sums of booleans rewritten."""

import torch
from captured import capture, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.normalize.dtypes import promote_operands

TOKENS = torch.tensor([[1, -2, 2**24 + 1]])


def targets(model, *inputs):
    graph = capture(model, *inputs)
    before = graph.run()
    graph.apply(promote_operands, exact=True)
    torch.testing.assert_close(graph.run(), before, rtol=0, atol=0)
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


def test_an_integer_that_meets_a_float_is_cast():
    assert targets(lambda i, x: i * x, TOKENS, random(1, 3)) == [aten._to_copy.default, aten.mul.Tensor]
    assert targets(lambda i: i / 4, TOKENS) == [aten._to_copy.default, aten.div.Tensor]
    assert targets(torch.sqrt, TOKENS.abs()) == [aten._to_copy.default, aten.sqrt.default]


def test_arithmetic_of_integers_alone_is_left_as_it_is():
    assert targets(lambda i: i * 3 + i, TOKENS) == [aten.mul.Tensor, aten.add.Tensor]
    assert targets(lambda i: i > 0, TOKENS) == [aten.gt.Scalar]


def test_booleans_are_numbers_already():
    assert targets(lambda x: (x > 0) * x, random(3, 5)) == [aten.gt.Scalar, aten.mul.Tensor]


def test_a_condition_is_no_operand_of_arithmetic():
    model = targets(lambda x, i: torch.where(x > 0, x, i), random(1, 3), TOKENS)
    assert model == [aten.gt.Scalar, aten._to_copy.default, aten.where.self]


def test_a_sum_of_booleans_is_a_disjunction():
    assert targets(lambda x: (x > 0) + (x < 1), random(3, 5))[-1] is aten.logical_or.default


def test_an_elementwise_operation_of_two_results_is_left_as_it_is():
    assert targets(lambda x: torch.frexp(x)[0], random(1, 3))[0] == aten.frexp.Tensor
