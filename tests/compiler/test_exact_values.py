"""Float32 values that bfloat16 holds are converted without a look at them; all others as before."""

import math

import pytest
import torch
from torch.fx import Graph

from tt_dynamo.ir.exact import to_bfloat16
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.helpers import as_bfloat16, exactly_bfloat16


def chain(kind, *calls):
    """The last of `calls`, each on the one before, the first on an input of the dtype `kind`."""
    node = Graph().placeholder("x")
    node.meta["val"] = torch.zeros(2, 3, dtype=kind)
    for target, *args in calls:
        *args, kwargs = (*args, {}) if not args or not isinstance(args[-1], dict) else args
        node = node.graph.call_function(target, (node, *args), kwargs)
    return node


@pytest.mark.parametrize(
    "node",
    [
        chain(torch.bool, (aten.where.Scalar, 0.0, -math.inf)),
        chain(torch.bool, (aten.where.Scalar, 1, -0.5), (aten.unsqueeze.default, 0), (aten.expand.default, [4, 2, 3])),
        chain(torch.bool, (aten._to_copy.default, {"dtype": torch.float32})),
        chain(torch.bfloat16, (aten._to_copy.default, {"dtype": torch.float32}), (aten.view.default, [6])),
    ],
)
def test_literals_and_narrow_values_are_exact(node):
    assert to_bfloat16(node) is exactly_bfloat16


@pytest.mark.parametrize(
    "node",
    [
        chain(torch.float32),
        chain(torch.float32, (aten.reshape.default, [6])),
        chain(torch.bool, (aten.where.Scalar, 0.0, torch.finfo(torch.float32).min)),
        chain(torch.bool, (aten.where.Scalar, 0.1, 0.0)),
        chain(torch.bool, (aten.where.Scalar, 1e300, 0.0)),
        chain(torch.bool, (aten.where.Scalar, math.nan, 0.0)),
        chain(torch.int64, (aten._to_copy.default, {"dtype": torch.float32})),
        chain(torch.float16, (aten._to_copy.default, {"dtype": torch.float32})),
        chain(torch.bool, (aten._to_copy.default, {"dtype": torch.float32}), (aten.mul.Tensor, 1e39)),
    ],
)
def test_what_bfloat16_may_not_hold_is_looked_at(node):
    assert to_bfloat16(node) is as_bfloat16


def test_a_choice_between_two_values_is_as_exact_as_both_are():
    mask = chain(torch.bool)
    graph = mask.graph
    zeros, tenths = (graph.call_function(aten.full.default, ([2, 3], number)) for number in (0.0, 0.1))
    assert to_bfloat16(graph.call_function(aten.where.self, (mask, zeros, zeros))) is exactly_bfloat16
    assert to_bfloat16(graph.call_function(aten.where.self, (mask, zeros, tenths))) is as_bfloat16


LARGEST = torch.finfo(torch.bfloat16).max


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([], []),
        ([3.4e38, 1.0, -3.4e38], [LARGEST, 1.0, -LARGEST]),
        ([math.inf, -math.inf, 3.4e38], [math.inf, -math.inf, LARGEST]),
        ([math.nan, 3.4e38], [math.nan, LARGEST]),
        ([3e38] * 4, [float(torch.tensor(3e38, dtype=torch.bfloat16))] * 4),  # their sum is infinite
        ([3e38, -3e38], [float(torch.tensor(sign * 3e38, dtype=torch.bfloat16)) for sign in (1, -1)]),
    ],
)
def test_finite_values_stay_finite_and_infinities_and_nans_stay(given, wanted):
    found = as_bfloat16(torch.tensor(given, dtype=torch.float32))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), torch.tensor(wanted, dtype=torch.float32), rtol=0, atol=0, equal_nan=True)
