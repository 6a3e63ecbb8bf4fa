"""Elementwise arithmetic and activations."""

import pytest
import torch
import torch.nn.functional as F
from compiled import calls, check, close, compiled, positive, random

from tt_dynamo.lowering import elementwise

SHAPES = [(), (1,), (33,), (3, 5), (2, 3, 33), (1, 1, 1, 1), (2, 1, 3, 4, 5), (32, 64)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_value_of_any_rank_and_size_is_computed_whole(shape):
    assert calls(check(torch.relu, random(*shape), roundings=0)) == ["relu"]


@pytest.mark.parametrize("target", elementwise.UNARY, ids=str)
def test_a_function_of_one_operand_is_one_call(target):
    assert calls(check(lambda x: target(x), positive(3, 33))) == [elementwise.UNARY[target]]


@pytest.mark.parametrize(
    "shapes",
    [
        ((3, 33), (3, 33)),
        ((2, 3, 33), (33,)),
        ((2, 1, 5), (3, 5)),
        ((1,), (4,)),
        ((), (3,)),
        ((2, 3, 4), (2, 1, 1)),
        ((1, 5), (4, 1)),
        ((2, 3, 4, 5, 6), (6,)),
        ((33,), (2, 3, 33)),
    ],
    ids=str,
)
@pytest.mark.parametrize("operation", [torch.add, torch.sub, torch.mul, torch.div])
def test_operands_broadcast_as_in_torch(operation, shapes):
    first, second = shapes
    report = check(operation, random(*first), random(*second, mean=4.0))
    assert len(calls(report)) == 1


@pytest.mark.parametrize("number", [2.5, -3, 0.1])
@pytest.mark.parametrize("operation", [torch.add, torch.sub, torch.mul, torch.div])
def test_the_second_operand_may_be_a_number(operation, number):
    check(lambda x: operation(x, number), random(3, 5))


def test_a_number_may_stand_first():
    check(lambda x: 2.5 - x, random(3, 5, mean=8.0))
    check(lambda x: 1 - x, random(3, 5, mean=8.0))


@pytest.mark.parametrize("operation", [torch.add, torch.sub])
def test_the_second_operand_is_multiplied_by_alpha_first(operation):
    x, y = positive(3, 5), positive(5)
    assert calls(check(lambda x, y: operation(x, y, alpha=-3), x, y, roundings=2, cancels=True))[0] == "multiply"
    check(lambda x: operation(x, 3, alpha=2), x)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_is_exact_or_by_tanh_as_asked(approximate):
    report = check(lambda x: F.gelu(x, approximate=approximate), random(3, 33))
    assert calls(report) == ["gelu"]
    assert ("GeluVariant.Tanh" in report.code) == (approximate == "tanh")


CLAMPS = [({"min": -0.5, "max": 0.5}, ["clamp"]), ({"min": 0.5}, ["maximum"]), ({"max": 0.5}, ["minimum"])]


@pytest.mark.parametrize(("limits", "expected"), CLAMPS, ids=str)
def test_clamp_has_either_limit_or_both(limits, expected):
    assert calls(check(lambda x: x.clamp(**limits), random(3, 33), roundings=0)) == expected


def test_clamp_min_is_a_clamp():
    assert calls(check(lambda x: torch.ops.aten.clamp_min(x, 0.25), random(3, 33), roundings=0)) == ["maximum"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_results_have_eagers_dtype(dtype):
    check(lambda x, y: x * y, random(3, 5).to(dtype), random(3, 5).to(dtype))


def test_operands_of_two_float_dtypes_are_promoted():
    check(lambda x, y: x * y, random(3, 5), random(5).bfloat16())
    check(lambda x, y: y * x, random(3, 5), random(5).bfloat16())


def test_integer_arithmetic_is_exact():
    whole = torch.arange(12).reshape(3, 4) + 2**20
    outputs, report = compiled(lambda i: (i + 3, i * 3 - i), whole)
    close(outputs, (whole + 3, whole * 3 - whole), roundings=0)
    assert not report.fallbacks


@pytest.mark.parametrize("model", [lambda i, x: i / 4 + x, lambda i, x: torch.relu(x) * i])
def test_integers_that_meet_floats_become_floats(model):
    check(model, torch.arange(12).reshape(3, 4), random(3, 4, mean=4.0), roundings=2)


def test_infinities_and_nans_are_where_eager_has_them():
    x = torch.tensor([[float("inf"), float("-inf"), float("nan"), 0.0, -0.0, 1.0]])
    check(lambda x: x * 2, x)
    check(torch.exp, x)
    check(lambda x: 1.0 / x, x)
