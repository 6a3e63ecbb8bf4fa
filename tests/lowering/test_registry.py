"""Every operation has at most one lowering, which fits its schema."""

import inspect

import pytest

from tt_dynamo import lowering
from tt_dynamo.ir.graph import aten
from tt_dynamo.lowering import registry
from tt_dynamo.lowering.registry import Need, find, lower, operand_name, registered

FREE = aten.igamma.default  # has no lowering


@pytest.fixture(autouse=True)
def registry_of_its_own(monkeypatch):
    monkeypatch.setattr(registry, "_lowerings", dict(registry._lowerings))


def test_a_lowering_is_found_by_its_operation():
    @lower(FREE, gives="ROW_MAJOR", other=Need("ROW_MAJOR", "uint32"))
    def igamma(ttnn, self, other):
        """Nothing."""

    found = find(FREE)
    assert found.function is igamma and found.gives == "ROW_MAJOR"
    assert found.need("other") == Need("ROW_MAJOR", "uint32")
    assert found.need("self") == Need("TILE", None)


def test_an_operation_without_a_lowering_has_none():
    assert find(FREE) is None


def test_registering_an_operation_twice_is_an_error():
    with pytest.raises(ValueError, match=r"aten\.relu\.default has a lowering already: relu"):
        lower(aten.relu.default)(lambda ttnn, x: x)


def test_registering_one_operation_twice_at_once_is_an_error():
    with pytest.raises(ValueError, match="has a lowering already"):
        lower(FREE, FREE)(lambda ttnn, self, other: self)


def test_a_need_of_an_operand_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match=r"no operand \['othr'\]; it has \['other', 'self'\]"):
        lower(FREE, othr=Need("any"))(lambda ttnn, self, other: self)


def test_several_operations_may_share_a_lowering():
    targets = (FREE, aten.igammac.default)
    lower(*targets)(lambda ttnn, self, other: self)
    assert find(targets[0]) is not None and find(targets[0]).function is find(targets[1]).function


def test_operands_are_named_by_the_schema():
    assert [operand_name(aten.embedding.default, position) for position in (0, 1)] == ["weight", "indices"]


def test_the_whole_registry_is_given_out_as_a_copy():
    registered().clear()
    assert find(aten.relu.default) is not None


@pytest.mark.parametrize("target", lowering.registered(), ids=str)
def test_a_lowering_takes_what_its_operation_is_called_with(target):
    arguments = target._schema.arguments
    positional = [argument.name for argument in arguments if not argument.kwarg_only]
    named = {argument.name: None for argument in arguments if argument.kwarg_only}
    signature = inspect.signature(find(target).function)
    signature.bind("ttnn", *positional, **named)
    required = [argument.name for argument in arguments if not argument.has_default_value()]
    signature.bind(
        "ttnn", *[name for name in required if name in positional], **{n: None for n in required if n in named}
    )


@pytest.mark.parametrize("target", lowering.registered(), ids=str)
def test_a_lowering_says_what_it_computes(target):
    assert find(target).function.__doc__
