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


def test_a_number_in_a_tensor_is_a_number():
    def operands(model, *inputs):
        graph = capture(model, *inputs)
        graph.apply(promote_operands)
        return graph.calls(aten.mul.Tensor, aten.div.Tensor, aten.add.Tensor, aten.sub.Tensor)[-1].args

    x, half = random(3, 5), torch.tensor(0.1)
    assert operands(lambda x: x / torch.sqrt(torch.tensor(4.0)), x)[1] == 2.0
    assert operands(lambda x: torch.tensor(0.5) * x, x)[1] == 0.5
    assert operands(lambda x: x.bfloat16() - torch.tensor(0.5).bfloat16(), x)[1] == 0.5
    left_alone = (
        lambda x: torch.tensor(0.5) / x,  # which do not commute
        lambda x: x * torch.tensor(float("inf")),  # the device's numbers are finite
        lambda x: x * torch.tensor([0.5]),  # which adds a dimension to some
        lambda x: x.bfloat16().add(torch.tensor(0.5)),  # of another dtype
        lambda x: torch.add(x, torch.tensor(0.5), alpha=2),
    )
    assert all(isinstance(operands(model, x)[1], torch.fx.Node) for model in left_alone)
    assert isinstance(operands(lambda x, half: x * half, x, half)[1], torch.fx.Node)  # the run tells it
