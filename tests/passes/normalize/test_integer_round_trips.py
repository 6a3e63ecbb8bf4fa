"""Floats that pass through bytes and back stay floats only where the bytes hold all of their values."""

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir.graph import aten, dtype_of
from tt_dynamo.passes.normalize.integer_round_trips import drop_integer_round_trips


def bytes_left(model, *inputs):
    with torch.no_grad():
        graph = capture(model, *inputs)
        graph.apply(drop_integer_round_trips, exact=True)
    return [n for n in graph.calls(aten._to_copy.default) if dtype_of(n) in (torch.int8, torch.uint8) and n.users]


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x.round().clamp(-128, 127).to(torch.int8).to(x.dtype),
        lambda x: x.clamp(-128, 127).round().to(torch.int8).to(torch.bfloat16),
        lambda x: x.round().clamp(0, 255).to(torch.uint8).float(),
        lambda x: x.clamp(-7, 7).to(torch.int8).float(),  # which rounds towards zero
        lambda x: x.round().clamp(-7.5, 7.5).to(torch.int8).float(),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_floats_within_bounds_stay_floats(model, dtype):
    assert not bytes_left(model, (100 * random(4, 32)).to(dtype))


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x.round().to(torch.int8).float(),
        lambda x: x.round().clamp(-128, 255).to(torch.int8).float(),
        lambda x: x.round().clamp(-8, 7).to(torch.uint8).float(),
        lambda x: x.round().clamp(max=127).to(torch.int8).float(),
    ],
)
def test_floats_that_may_wrap_around_are_cast(model):
    assert bytes_left(model, random(4, 32))


def test_bytes_that_are_given_away_are_made():
    def model(x):
        y = x.round().clamp(-128, 127).to(torch.int8)
        return y, y.float()

    (left,) = bytes_left(model, 100 * random(4, 32))
    assert [user.op for user in left.users] == ["output"]


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (lambda x: ((x * 4).round() + 3).clamp(0, 255).to(torch.uint8).float(), 0),
        (lambda x: ((x * 4).round() + torch.tensor([3, 5])).clamp(0, 255).to(torch.uint8).float(), 0),
        (lambda x: ((x * 4).round() + 0.5).clamp(0, 255).to(torch.uint8).float(), 1),
        (lambda x: torch.add((x * 4).round(), 3, alpha=2).clamp(0, 255).to(torch.uint8).float(), 1),
    ],
    ids=["a zero point", "zero points", "a half", "a multiple"],
)
def test_what_is_rounded_from_a_zero_point_on_is_whole(model, count):
    with torch.no_grad():
        graph = capture(model, 100 * random(4, 2))
        graph.apply(drop_integer_round_trips, exact=True)
    assert len(graph.calls(aten.trunc.default)) == count


def shifts_left(model, *inputs):
    with torch.no_grad():
        graph = capture(model, *inputs)
        graph.apply(drop_integer_round_trips, exact=True)
    return len(graph.calls(aten.add.Tensor)) + len(graph.calls(aten.sub.Tensor))


@pytest.mark.parametrize(
    "model",
    [
        lambda x: ((x.round() + 3).clamp(0, 255).to(torch.uint8).to(x.dtype) - 3) * 0.5,
        lambda x: (x.round() + 128).clamp(0, 255) - 128,
        lambda x: x.round().clamp(-128, 127) - 0,
    ],
    ids=["through bytes", "in floats", "of nothing"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_zero_point_that_comes_and_goes_is_in_the_bounds(model, dtype):
    assert shifts_left(model, (100 * random(4, 32)).to(dtype)) == 0


def test_infinities_and_nan_are_clamped_as_before():
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 3.5, 1e30])
    graph = capture(lambda x: (x.round() + 3).clamp(0, 255) - 3, x)
    assert graph.apply(drop_integer_round_trips, exact=True) == 1


@pytest.mark.parametrize(
    "model",
    [
        lambda x: (x + 3).clamp(0, 255) - 3,  # which rounds to the steps of the sum
        lambda x: (x.round() + 3).clamp(0, 255) - 4,
        lambda x: (x.round() + 0.1).clamp(0, 255) - 0.1,
        lambda x: (x.round() + 300).clamp(0, 600) - 300,
        lambda x: (lambda y: (y - 3, y))((x.round() + 3).clamp(0, 255)),
        lambda x: torch.sub((x.round() + 3).clamp(0, 255), 3, alpha=2),
    ],
)
def test_other_shifts_stay(model):
    assert shifts_left(model, 100 * random(4, 32)) == 2
