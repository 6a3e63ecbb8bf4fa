"""Lowerings of comparison, logic and casts by themselves: placement leaves many of their operands on the host."""

import operator

import pytest
import torch
from compiled import BOARD, close, compiled, random
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


@pytest.mark.parametrize("name", COMPARISONS)
@pytest.mark.parametrize("number", [0, -0.0, 0.5, INF, -INF])
def test_a_comparison_of_zeros_infinities_and_nans_is_eagers(name, number):
    target = getattr(aten, name).Scalar
    if name in ("lt", "gt", "le" if number == INF else "ge") and number in (INF, -INF):
        with pytest.raises(Unsupported, match="inf stays on the host"):
            on_device(target, SPECIAL, number)
    else:
        on_device(target, SPECIAL, number)


@pytest.mark.parametrize("target", comparison.PREDICATES, ids=str)
def test_a_predicate_is_eagers(target):
    on_device(target, SPECIAL.nan_to_num(1.0) if target is aten.signbit.default else SPECIAL)


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


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
def test_logic_of_integers_is_about_their_being_zero(name):
    on_device(getattr(aten, name).default, WHOLE.int(), torch.tensor([[1.0], [0.0]]))


@pytest.mark.parametrize("number", [False, True])
@pytest.mark.parametrize("target", [aten.bitwise_and.Scalar, aten.bitwise_or.Scalar, aten.bitwise_xor.Scalar], ids=str)
def test_logic_joins_a_boolean_and_a_number(target, number):
    on_device(target, torch.tensor([[True, False]]), number)
    with pytest.raises(Unsupported, match="integer"):
        on_device(target, WHOLE.int(), 3)


def test_not_of_integers():
    on_device(aten.logical_not.default, WHOLE.int())


def test_a_choice_between_integers_is_exact():
    on_device(aten.where.self, WHOLE > 0, WHOLE.int(), WHOLE.T.int())


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
