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
