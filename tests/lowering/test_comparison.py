"""Comparison, logic and choice; booleans are bfloat16 zeros and ones on the device."""

import operator

import pytest
import torch
from compiled import BOARD, calls, check, close, compiled, random

from tt_dynamo.devices import open_device
from tt_dynamo.graph import Unsupported, aten
from tt_dynamo.lowering import find

COMPARISONS = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}


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


def test_logic_on_booleans_of_the_device():
    x = random(3, 33)
    check(lambda x: ~(torch.relu(x) > 0.5), x)
    check(lambda x: torch.logical_not(torch.relu(x) > 0.5), x)
    check(lambda x: (torch.relu(x) > 0.5) & (torch.tanh(x) < 0.7), x)
    check(lambda x: torch.logical_and(torch.relu(x) > 0.5, torch.tanh(x) < 0.7), x)


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
