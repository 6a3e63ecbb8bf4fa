"""Elementwise arithmetic and activations."""

import pytest
import torch
from compiled import calls, check, close, compiled, falls_back, positive, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering import elementwise

# Where functions overflow, have poles, or are not defined; each exact in bfloat16.
SPECIAL = torch.tensor([[0.0, -0.0, 1.0, -1.0, 2.0, -2.5, 200.0, -200.0, float("inf"), float("-inf"), float("nan")]])
NOT_OF_MANY_NUMBERS = (aten.log.default, aten.log2.default, aten.log10.default, aten.log1p.default, aten.acosh.default)
NOT_OF_LARGE_NUMBERS = (aten.acos.default, aten.asin.default, aten.atanh.default)

SHAPES = [(), (1,), (33,), (3, 5), (2, 3, 33), (1, 1, 1, 1), (2, 1, 3, 4, 5), (32, 64)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_value_of_any_rank_and_size_is_computed_whole(shape):
    assert calls(check(torch.relu, random(*shape), roundings=0)) == ["relu"]


@pytest.mark.parametrize("target", elementwise.UNARY, ids=str)
def test_a_function_of_one_operand_is_one_call(target):
    x = positive(3, 33) if target in NOT_OF_MANY_NUMBERS else random(3, 33)
    x = x.clamp(-1, 1) if target in NOT_OF_LARGE_NUMBERS else x
    assert calls(check(lambda x: target(x), x)) == [elementwise.UNARY[target]]


@pytest.mark.parametrize("target", elementwise.UNARY, ids=str)
def test_a_function_of_one_operand_is_infinite_or_not_a_number_where_eagers_is(target):
    check(lambda x: target(x), SPECIAL)


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


@pytest.mark.parametrize("shape", [(3, 5), ()], ids=str)
@pytest.mark.parametrize("number", [2.5, 1])
def test_a_number_may_stand_first(number, shape):
    check(lambda x: number - x, random(*shape, mean=8.0))
    check(lambda x: number / x, random(*shape, mean=8.0), roundings=2)
    check(lambda x: aten.div.Tensor(number, x), random(*shape, mean=8.0))


TWO_OPERANDS = {
    **elementwise.BINARY,
    **dict.fromkeys((aten.mul.Tensor, aten.mul.Scalar), "multiply"),
    **dict.fromkeys((aten.div.Tensor, aten.div.Scalar), "divide"),
}


@pytest.mark.parametrize("target", TWO_OPERANDS, ids=str)
def test_a_function_of_two_operands_is_one_call(target):
    second = 2.5 if "Scalar" in str(target) else random(3, 1, mean=4.0)
    report = check(lambda x: target(torch.relu(x), second), positive(3, 33))
    assert calls(report) == ["relu", TWO_OPERANDS[target]]


@pytest.mark.parametrize("target", [*elementwise.BINARY, aten.mul.Tensor, aten.div.Tensor], ids=str)
def test_a_function_of_two_operands_is_infinite_or_not_a_number_where_eagers_is(target):
    check(lambda x, y: target(x, y), SPECIAL, SPECIAL.T)


@pytest.mark.parametrize("operation", [torch.add, torch.sub])
def test_the_second_operand_is_multiplied_by_alpha_first(operation):
    x, y = positive(3, 5), positive(5)
    assert calls(check(lambda x, y: operation(x, y, alpha=-3), x, y, roundings=2, cancels=True))[0] == "multiply"
    check(lambda x: operation(x, 3, alpha=2), x)


CLAMPS = [({"min": -0.5, "max": 0.5}, ["clamp"]), ({"min": 0.5}, ["maximum"]), ({"max": 0.5}, ["minimum"])]


@pytest.mark.parametrize(("limits", "expected"), CLAMPS, ids=str)
def test_clamp_has_either_limit_or_both(limits, expected):
    assert calls(check(lambda x: x.clamp(**limits), random(3, 33), roundings=0)) == expected


@pytest.mark.parametrize("operation", [torch.clamp_min, torch.clamp_max])
@pytest.mark.parametrize("limit", [0.25, torch.tensor([[0.5], [-0.25], [1.0]])], ids=["a number", "a tensor"])
def test_one_limit_is_one_call(operation, limit):
    assert len(calls(check(lambda x: operation(torch.relu(x), limit), random(3, 33), roundings=0))) == 2


def test_limits_may_be_tensors_that_broadcast():
    low, high = random(3, 1), random(33, mean=1.0)
    assert calls(check(torch.clamp, random(3, 33), low, high, roundings=0)) == ["maximum", "minimum"]


def test_limits_the_wrong_way_round_give_the_upper_one():
    check(lambda x: x.clamp(0.5, -0.5), random(3, 33), roundings=0)


def test_limits_leave_infinities_on_the_other_side():
    check(lambda x: (x.clamp(min=-1), x.clamp(max=1)), SPECIAL, roundings=0)


EXPONENTS = {
    0: ["fill"], 1: [], 2: ["multiply"], 3: ["pow"], 4.0: ["pow"], 2.5: ["pow"], 0.5: ["sqrt"], -0.5: ["rsqrt"],
    -1: ["reciprocal"], -2: ["multiply", "reciprocal"], -3.0: ["pow", "reciprocal"], -1.5: ["pow", "reciprocal"],
}  # fmt: skip


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_a_power_by_a_number(exponent):
    report = check(lambda x: torch.relu(x) ** exponent, positive(3, 33), roundings=2)
    assert calls(report) == ["relu", *EXPONENTS[exponent]]
    check(lambda x: x**exponent, random(3, 33, scale=4.0).abs() if exponent % 1 else random(3, 33), roundings=2)


@pytest.mark.parametrize("exponent", [*EXPONENTS, -2.5])
def test_powers_of_zero_and_infinities_are_eagers(exponent):
    # The sign of infinity as an odd negative power of -0.0 is all that the device does not have.
    check(lambda x: x**exponent, SPECIAL.where(SPECIAL != 0, 0.0), roundings=2)


def test_a_power_by_a_tensor():
    check(torch.pow, positive(3, 33), random(33))
    check(torch.pow, SPECIAL, SPECIAL.T)


def test_a_number_to_the_power_of_a_tensor():
    assert calls(check(lambda x: 2.5 ** torch.relu(x), random(3, 33))) == ["relu", "rpow"]
    check(lambda x: 0.5**x, SPECIAL)


def test_products_join_sums():
    x, a, b = random(2, 3, 33), random(3, 1), positive(33)
    assert calls(check(lambda x, a, b: torch.addcmul(x, a, b, value=-0.5), x, a, b, cancels=True)) == ["addcmul"]
    addcdiv = torch.ops.aten.addcdiv  # torch.addcdiv is taken apart by Dynamo
    assert calls(check(lambda x, a, b: addcdiv(x, a, b, value=2), x, a, b, cancels=True)) == ["addcdiv"]


@pytest.mark.parametrize("weight", [0.25, 0.75, torch.tensor([[0.25], [0.5], [0.75]])], ids=str)
def test_lerp_is_one_call(weight):
    assert calls(check(lambda x, y: torch.lerp(x, y, weight), random(3, 33), random(33), cancels=True)) == ["lerp"]


def test_a_sign_is_copied_from_zeros_too():
    check(torch.copysign, random(11, 11), SPECIAL.nan_to_num(1.0), roundings=0)
    check(lambda x: (torch.copysign(x, -0.0), torch.copysign(x, 2)), random(3, 33), roundings=0)


def test_the_angle_of_negative_numbers_is_pi():
    check(torch.angle, SPECIAL)


@pytest.mark.parametrize("operation", [torch.fmax, torch.fmin])
def test_of_a_number_and_no_number_the_number_counts(operation):
    check(operation, SPECIAL, SPECIAL.T, roundings=0)


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


def test_sums_and_products_of_booleans_are_booleans():
    def model(x):
        a, b = torch.relu(x) > 0.5, torch.tanh(x) < 0.7
        return a + b, a * b, (a + b) * torch.exp(x), (a | b) * 2.5

    check(model, random(3, 33))


def test_a_float_is_not_taken_for_an_integer():
    """TTNN adds to a boolean in bfloat16, where integers above 256 are lost."""
    fallback = falls_back(lambda x: ((torch.relu(x) > 0.5) + 2) * torch.exp(x), random(3, 33))
    assert fallback.reason == "TTNN gives bfloat16, eager torch torch.int64"


@pytest.mark.parametrize("rank", range(7))
def test_three_operands_of_any_rank_broadcast(rank):
    shape = (2, 1, 3, 1, 2, 5)[6 - rank :]
    check(lambda x, y, z: torch.where(x > y, x * y, z), random(*shape), random(), random(*shape[-1:]))


def test_operands_may_lie_in_any_strides():
    x = random(4, 6, 8)
    y, z = x[0, ::2, ::2].T.flatten()[3:9], x[1, :, :1].expand(6, 8).T
    check(lambda x, y, z: torch.relu(x) * y * z, x.mT, y, z, roundings=2)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 0, 5)], ids=str)
def test_what_has_no_elements_is_no_work(shape):
    outputs, report = compiled(lambda x: torch.exp(x) * 2 + x, torch.empty(shape))
    assert outputs.shape == shape
    assert not report.fallbacks
    assert not report.nodes


def test_what_is_like_a_tensor_in_its_shape_alone_is_a_constant():
    def model(x):
        x = torch.relu(x)
        return torch.zeros_like(x), torch.full_like(x, 2.5), torch.ones_like(x, dtype=torch.int64), x.new_full((2,), 3)

    outputs, report = compiled(model, random(3, 5))
    close(outputs, model(random(3, 5)), roundings=0)
    assert not report.nodes
    assert calls(check(lambda x: torch.exp(x) + x.clone().fill_(2), random(3, 5), roundings=2)) == ["exp", "add"]
