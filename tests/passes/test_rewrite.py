"""Patterns match what they say and nothing else; the driver counts, logs and ends."""

from __future__ import annotations

import logging

import pytest
import torch
from captured import Module, capture, parameter, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.rewrite import (
    ADD,
    DIV,
    MUL,
    Rules,
    call,
    cast,
    emit,
    is_constant,
    is_number,
    once,
    scaled,
    variable,
)

x, y = variable("x"), variable("y")
EXP = aten.exp.default


def count(pattern, function, *inputs, model=None):
    """How many nodes of a function's graph the pattern matches."""
    graph = capture(model or function, *(inputs or (random(2, 3), random(2, 3))))
    return sum(any(True for _ in pattern.matches(node, {})) for node in graph.graph.nodes)


@pytest.mark.parametrize("function", [lambda a, b: a.exp() * b, lambda a, b: b * a.exp()])
def test_operands_of_a_product_match_in_either_order(function):
    assert count(call(MUL, call(EXP, x), y), function) == 1


def test_operands_of_a_quotient_match_in_their_order():
    assert count(call(DIV, call(EXP, x), y), lambda a, b: b / a.exp()) == 0


@pytest.mark.parametrize(("number", "matches"), [(0.5, 1), (0.5 * (1 + 9e-6), 1), (0.5 * (1 + 2e-5), 0), (-0.5, 0)])
def test_numbers_match_within_1e_5(number, matches):
    assert count(call(MUL, x, 0.5), lambda a, b: a * number + b) == matches


@pytest.mark.parametrize("function", [lambda a, b: a * 4 + b, lambda a, b: a / 0.25 + b])
def test_a_scale_is_a_product_or_a_quotient(function):
    assert count(scaled(x, 4), function) == 1


def test_a_variable_stands_for_one_value():
    assert count(call(MUL, x, x), lambda a, b: a * b + a * a) == 1


def test_a_variable_holds_what_its_condition_allows():
    model = Module(parameter(3), forward=lambda m, a: a * (m.p0 + 1) + a * a)
    assert count(call(MUL, x, variable("w", is_constant)), None, random(2, 3), model=model) == 1
    assert count(call(ADD, x, variable("c", is_number)), lambda a, b: (a + 2) + b) == 1


def test_arguments_that_a_pattern_leaves_out_have_their_defaults():
    def function(a, b):
        return torch.add(a, b, alpha=2), torch.add(a, b), torch.nn.functional.gelu(a, approximate="tanh")

    assert count(call(ADD, x, y), function) == 1
    assert count(call(ADD, x, y, alpha=2), function) == 1
    assert count(call(aten.gelu.default, x), function) == 0
    assert count(call(aten.gelu.default, x, approximate="tanh"), function) == 1


def test_what_is_read_once_has_one_reader():
    pattern = call(aten.neg.default, once(call(EXP, x)))
    assert count(pattern, lambda a, b: -a.exp()) == 1
    assert count(pattern, lambda a, b: (lambda e: (-e, e))(a.exp())) == 0


@pytest.mark.parametrize(("dtype", "matches"), [(torch.float32, 1), (torch.bfloat16, 1), (torch.int32, 0)])
def test_a_cast_is_of_floats_and_may_be_absent(dtype, matches):
    assert count(call(aten.neg.default, cast(call(EXP, x))), lambda a, b: -a.exp().to(dtype)) == matches


def test_a_last_step_may_be_absent_and_is_taken_where_it_is_not():
    rules = Rules(last_first=True)
    inner = call(EXP, x)

    def build(node, x, y=None):
        return emit(node, aten.tanh.default, x) if y is None else emit(node, aten.atan2.default, x, y)

    rules.add("step", call(MUL, once(inner), y) | inner, build)
    graph = capture(lambda a, b: (a.exp() * b, b.exp()), random(2, 3), random(2, 3))
    assert rules.apply(graph.graph) == 2
    assert graph.targets() == [aten.atan2.default, aten.tanh.default]


def test_the_next_match_counts_where_one_gives_nothing():
    rules = Rules()
    rules.add("second", call(MUL, x, y), lambda node, x, y: x if x.target is EXP else None)
    graph = capture(lambda a, b: b * a.exp(), random(2, 3), random(2, 3))
    assert rules.apply(graph.graph) == 1
    assert graph.targets() == [EXP]


def test_rules_are_applied_until_nothing_changes_and_logged(caplog):
    rules = Rules()
    rules.add("double", call(aten.neg.default, call(aten.neg.default, x)), lambda node, x: emit(node, EXP, x))
    rules.add("exp", call(EXP, call(EXP, x)), lambda node, x: emit(node, aten.tanh.default, x))
    with caplog.at_level(logging.DEBUG, logger="tt_dynamo.passes.rewrite"):
        graph = capture(lambda a: a.neg().neg().exp(), random(2, 3))
        assert rules.apply(graph.graph) == 2
    assert graph.targets() == [aten.tanh.default]
    messages = [record.getMessage() for record in caplog.records if record.name == "tt_dynamo.passes.rewrite"]
    assert [message.split(" in ")[0] for message in messages] == ["double: 1 places", "exp: 1 places"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_rules_that_never_end_say_so(passes_that_raised):
    rules = Rules()
    rules.add("there", call(EXP, x), lambda node, x: emit(node, aten.tanh.default, x))
    rules.add("back", call(aten.tanh.default, x), lambda node, x: emit(node, EXP, x))
    graph = capture(lambda a: a.exp(), random(2, 3))
    assert rules.apply(graph.graph) > 2
    warning = passes_that_raised.pop()
    assert "no fixed point" in warning and "there" in warning and "back" in warning


def test_what_is_left_is_not_replaced():
    rules = Rules()
    rules.on()(lambda node: emit(node, EXP, node.args[0]) if node.target is not EXP else None)
    graph = capture(lambda a: -a.tanh(), random(2, 3))
    assert (
        rules.apply(graph.graph, leave=lambda graph: graph.find_nodes(op="call_function", target=aten.neg.default)) == 1
    )
    assert graph.targets() == [EXP, aten.neg.default]
