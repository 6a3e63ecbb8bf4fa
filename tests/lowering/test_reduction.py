"""Reductions."""

import pytest
import torch
from compiled import compiled, falls_back, random

from tt_dynamo.lowering import reduction


def test_more_booleans_than_float32_can_count_are_counted_on_the_host(monkeypatch):
    x = random(2, 40, 33)
    monkeypatch.setattr(reduction, "COUNTABLE", x.numel() - 1)
    assert "cannot count to 2640" in falls_back(lambda x: (torch.relu(x) > 0).sum(), x).reason


def test_a_running_count_beyond_float32_is_made_on_the_host(monkeypatch):
    monkeypatch.setattr(reduction, "COUNTABLE", 32)
    fallback = falls_back(lambda x: (torch.relu(x) > 0).cumsum(1) * x, random(8, 33, 4))
    assert "cannot count to 33" in fallback.reason


def test_a_dimension_named_twice_is_an_error_as_in_eager_torch():
    with pytest.raises(Exception, match="duplicate value in the list of dims"):
        compiled(lambda x: x.sum((0, -2)), random(2, 3))
