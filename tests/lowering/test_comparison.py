"""Comparison, logic and choice; booleans are bfloat16 zeros and ones on the device."""

import operator

import pytest
import torch
from compiled import BOARD, calls, check, close, compiled, random
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import make_fx

from tt_dynamo.devices import open_device
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering import comparison, find

INF = float("inf")
SPECIAL = torch.tensor([[0.0, -0.0, 1.0, -1.0, 0.5, INF, -INF, float("nan")]])
COMPARISONS = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}


def on_device(target, *operands):
    """Hold the lowering of `target` by itself against eager torch; placement likes to leave integers on the host."""
    device = open_device(BOARD)
    ttnn = device.namespace()

    def up(value):
        if not isinstance(value, torch.Tensor):
            return value
        integers = value.dtype in (torch.int32, torch.int64)
        dtype, value = (ttnn.int32, value.int()) if integers else (ttnn.bfloat16, value.float())
        return ttnn.from_torch(value, dtype=dtype, layout=ttnn.TILE_LAYOUT, device=device.handle)

    expected = target(*operands)
    if not isinstance(target, torch._ops.OpOverload):
        graph = make_fx(target)(*operands).graph
        (node,) = [node for node in graph.nodes if node.op == "call_function"]
        target, operands = node.target, [a if not isinstance(a, Node) else operands[i] for i, a in enumerate(node.args)]
    found = find(target).function(ttnn, *map(up, operands))
    close(ttnn.to_torch(found, dtype=expected.dtype), expected, roundings=0)


def whole(*shape):
    """Small integers as floats, so that many are equal."""
    return random(*shape).round()


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("shape", [(3, 33), (1,), (2, 3, 4, 5)], ids=str)
def test_a_comparison_with_a_number_is_boolean(name, shape):
    assert calls(check(lambda x: COMPARISONS[name](torch.relu(x), 1), whole(*shape))) == ["relu", name]


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_comparison_with_a_tensor_broadcasts(name):
    x, y = whole(2, 3, 33), whole(33)
    assert name in calls(check(lambda x, y: COMPARISONS[name](torch.relu(x), torch.relu(y)), x, y))


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("number", [0, -0.0, 0.5, INF, -INF])
def test_a_comparison_of_zeros_infinities_and_nans_is_eagers(name, number):
    target = getattr(aten, name).Scalar
    if name in ("lt", "gt", "le" if number == INF else "ge") and number in (INF, -INF):
        with pytest.raises(Unsupported, match="inf stays on the host"):
            on_device(target, SPECIAL, number)
    else:
        on_device(target, SPECIAL, number)


def test_a_number_is_rounded_as_the_elements_that_it_is_compared_with():
    """0.1 is no bfloat16: on the device it and the element that was 0.1 are the same one."""
    x = torch.tensor([[0.1, 0.0, 1.0]])
    for compare in COMPARISONS.values():
        outputs, report = compiled(lambda x, compare=compare: compare(-x, -0.1), x)
        assert not report.fallbacks
        close(outputs, compare(-x, -0.1), roundings=0)


@pytest.mark.parametrize("name", COMPARISONS)
def test_a_comparison_of_two_tensors_knows_no_order_of_nans(name):
    x = torch.tensor([[0.0, 1.0, -1.0, INF, float("nan")]])
    outputs, report = compiled(lambda x, y: COMPARISONS[name](x, y), x, -x.T)
    assert not report.fallbacks
    close(outputs, COMPARISONS[name](x, -x.T), roundings=0)


def test_a_tensor_that_is_not_itself_is_not_a_number():
    assert calls(check(lambda x: -x != -x, SPECIAL)) == ["neg", "isnan"]
    assert calls(check(lambda x: -x == -x, SPECIAL)) == ["neg", "isnan", "eqz"]


@pytest.mark.parametrize("target", comparison.PREDICATES, ids=str)
def test_a_predicate_is_one_call(target):
    x = SPECIAL.nan_to_num(1.0) if target is aten.signbit.default else SPECIAL
    on_device(target, x)
    assert calls(check(lambda x: target(-x), x)) == ["neg", target._schema.name.removeprefix("aten::")]


def test_finite_is_neither_infinite_nor_not_a_number():
    check(lambda x: torch.isfinite(-x), SPECIAL)


# Neither float32 nor bfloat16 tells these from their neighbours.
WHOLE = torch.tensor([[2**24 + 1, -(2**24) - 3, 2**31 - 1, -(2**31), 0, 1, -1, 257]])


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_integers_are_compared_exactly(name, dtype):
    first, second = WHOLE.to(dtype), (WHOLE + (WHOLE < 0)).to(dtype)
    on_device(lambda i, j: COMPARISONS[name](i, j), first, second)
    on_device(lambda i: COMPARISONS[name](i, 2**24 + 1), first)


def test_integers_are_not_compared_with_fractions_or_floats_on_the_device():
    for model in (lambda i, x: i > 0.5, lambda i, x: i == x, lambda i, x: i < 2**40):
        outputs, _ = compiled(model, WHOLE, random(1, 8))
        close(outputs, model(WHOLE, random(1, 8)), roundings=0)
    for target, operands in ((aten.gt.Scalar, (WHOLE, 0.5)), (aten.eq.Tensor, (WHOLE, random(1, 8)))):
        with pytest.raises(Unsupported):
            on_device(target, *operands)


LOGIC = {
    "and": (operator.and_, torch.logical_and),
    "or": (operator.or_, torch.logical_or),
    "exclusive or": (operator.xor, torch.logical_xor),
}


@pytest.mark.parametrize("name", LOGIC)
def test_logic_joins_booleans(name):
    for operation in LOGIC[name]:
        report = check(lambda x, join=operation: join(torch.relu(x) > 0.5, torch.tanh(x[:1]) < 0.7), random(3, 33))
        assert calls(report)[-1].startswith("logical_")


@pytest.mark.parametrize("name", LOGIC)
def test_logic_of_numbers_is_about_their_being_zero(name):
    check(lambda x: LOGIC[name][1](x, torch.relu(x)) * torch.exp(x), torch.tensor([[3.0, 0.0, -0.0, -2.0, 0.25]]))
    on_device(getattr(aten, LOGIC[name][1].__name__).default, WHOLE.int(), torch.tensor([[1.0], [0.0]]))


@pytest.mark.parametrize("number", [False, True])
@pytest.mark.parametrize("target", [aten.bitwise_and.Scalar, aten.bitwise_or.Scalar, aten.bitwise_xor.Scalar], ids=str)
def test_logic_joins_a_boolean_and_a_number(target, number):
    on_device(target, torch.tensor([[True, False]]), number)
    with pytest.raises(Unsupported, match="integer"):
        on_device(target, WHOLE.int(), 3)


def test_not_of_booleans_and_numbers():
    check(lambda x: ~(torch.relu(x) > 0.5), random(3, 33))
    check(lambda x: torch.logical_not(torch.relu(x) > 0.5), random(3, 33))
    check(lambda x: torch.logical_not(torch.relu(x)), torch.tensor([[3.0, 0.0, -0.0, -2.0, 0.25]]))
    on_device(aten.logical_not.default, WHOLE.int())


@pytest.mark.parametrize("operation", [torch.bitwise_not, lambda i: i & (i + 2)])
def test_bits_of_integers_are_exact(operation):
    whole = torch.arange(12).reshape(3, 4) + 2**20
    outputs, _ = compiled(operation, whole)
    close(outputs, operation(whole), roundings=0)


CHOICES = {
    "two tensors": lambda x, y: torch.where(torch.relu(x) > 0.5, x, y),
    "a broadcast condition": lambda x, y: torch.where(torch.relu(x[:1]) > 0.5, x, y),
    "a tensor and a number": lambda x, y: torch.where(torch.relu(x) > 0.5, x, 0.0),
    "a number and a tensor": lambda x, y: torch.where(torch.relu(x) > 0.5, -1.5, y),
    "two numbers": lambda x, y: torch.where(torch.relu(x) > 0.5, 1.5, -2.0) * torch.relu(x),
    "masked_fill": lambda x, y: x.masked_fill(torch.relu(x) > 0.5, -1.0),
    "masked_fill with -inf": lambda x, y: x.masked_fill(torch.relu(x) > 0.5, float("-inf")),
}


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_between(name):
    assert "where" in calls(check(CHOICES[name], random(3, 33), random(33, mean=2.0)))


def test_a_choice_between_integers_gives_eagers_answer():
    def model(x, i):
        return torch.where(torch.relu(x) > 0.5, i, i + 1)

    x, i = random(3, 4), torch.arange(12).reshape(3, 4) + 2**20
    outputs, _ = compiled(model, x, i)
    close(outputs, model(x, i), roundings=0)


def test_a_choice_between_integers_is_exact():
    on_device(aten.where.self, WHOLE > 0, WHOLE.int(), WHOLE.T.int())


def test_what_is_not_chosen_does_not_leak():
    x, nan = torch.tensor([[1.0, 2.0, 3.0, -1.0]]), torch.tensor([[float("nan"), INF, -INF, 1.0]])
    check(lambda x, y: (torch.where(x > 0, x, y), torch.where(x > 0, y, 2.0)), x, nan)
    check(lambda x: torch.where(x == 0, 1.0, 1 / x), torch.tensor([[0.0, 2.0, -0.0, -4.0]]))


SHAPES = [((3, 1), (33,), ()), ((), (2, 3), (3,)), ((2, 1, 1, 4), (3, 1), (5, 1, 4))]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_condition_and_choices_broadcast(shapes):
    check(lambda c, x, y: torch.where(torch.relu(c) > 0.5, x, y), *(random(*shape) for shape in shapes))


STAND_INS = [{}, {"nan": 2.0}, {"posinf": 8.0}, {"nan": 1.0, "posinf": 4.0, "neginf": -2.0}]


@pytest.mark.parametrize("numbers", STAND_INS, ids=str)
def test_numbers_stand_in_for_infinities_and_nans(numbers):
    check(lambda x: torch.nan_to_num(x, **numbers), SPECIAL)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_boolean_becomes_a_float(dtype):
    check(lambda x: torch.relu(x) * (torch.tanh(x) > 0.5).to(dtype), random(3, 33))


def test_an_integer_becomes_a_float_or_a_boolean():
    i = torch.tensor([[0, 1, 2, -3]])
    check(lambda i, x: i.float() * x, i, random(3, 4))
    check(lambda i, x: i.bool() * x, i, random(3, 4))


class TestCast:
    """The casts that placement leaves to the host, made on the device all the same."""

    @pytest.fixture
    def ttnn(self):
        return open_device(BOARD).namespace()

    def cast(self, ttnn, values, held, dtype):
        device = open_device(BOARD).handle
        x = ttnn.from_torch(values, dtype=getattr(ttnn, held), layout=ttnn.TILE_LAYOUT, device=device)
        return ttnn.to_torch(find(aten._to_copy.default).function(ttnn, x, dtype=dtype), dtype=dtype)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool])
    def test_an_integer_is_cast_exactly(self, ttnn, dtype):
        values = torch.tensor([[0, 1, -2, 128]], dtype=torch.int32)
        assert torch.equal(self.cast(ttnn, values, "int32", dtype), values.to(dtype))

    def test_a_float_is_true_where_it_is_not_zero(self, ttnn):
        values = torch.tensor([[0.0, -0.0, 0.25, -3.0]])
        assert torch.equal(self.cast(ttnn, values, "bfloat16", torch.bool), values.bool())

    def test_a_float_is_no_integer_on_the_device(self, ttnn):
        with pytest.raises(Unsupported, match="int64"):
            self.cast(ttnn, torch.ones(1, 4), "bfloat16", torch.int64)
