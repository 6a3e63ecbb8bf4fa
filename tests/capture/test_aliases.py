"""Inputs that share elements: what AOTAutograd sees is compiled, what it does not see runs in eager torch."""

import itertools

import pytest
import torch
from comparison import assert_close

import tt_dynamo
from tt_dynamo.capture.aliases import misjudged_inputs, share_elements

BASE = torch.arange(120.0)
VIEWS = {
    "rows": BASE.view(12, 10)[:, :2],
    "rows from the second": BASE.view(12, 10)[1:, :2],
    "other columns": BASE.view(12, 10)[:, 2:5],
    "one column more": BASE.view(12, 10)[:, 1:3],
    "every other": BASE[::2],
    "every other, odd": BASE[1::2],
    "transposed": BASE.view(12, 10).t()[:3],
    "cube": BASE.view(2, 6, 10)[:, 1:3, 4:6],
    "expanded": BASE[7:8].expand(5),
    "end": BASE[100:],
}


@pytest.mark.parametrize("pair", list(itertools.combinations(VIEWS, 2)), ids=lambda pair: ", ".join(pair))
def test_sharing_is_exact(pair: tuple[str, str]):
    one, other = (VIEWS[name] for name in pair)
    common = set(one.reshape(-1).tolist()) & set(other.reshape(-1).tolist())
    assert share_elements(one, other) == bool(common)


def test_large_matrices_are_counted_by_rows():
    base = torch.empty(4096, 3 * 4096)
    assert not share_elements(base[:, :4096], base[:, 4096:8192])
    assert share_elements(base[:, :4097], base[:, 4096:8192])


def test_what_autograd_takes_for_apart_is_found():
    assert misjudged_inputs([VIEWS["end"], VIEWS["rows"], 3, VIEWS["rows from the second"]]) == [1, 3]
    assert not misjudged_inputs([VIEWS["rows"], VIEWS["other columns"], VIEWS["end"], BASE])


def test_a_write_shows_in_the_other_input():
    def double(x, y):
        x.add_(x)
        return torch.relu(y)

    def rows():
        x = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))[:, :2]
        return x, x[1:]

    ours, eager = rows(), rows()
    with tt_dynamo.record() as reports, torch.no_grad():
        result = torch.compile(double, backend="ttnn", dynamic=False, options={"device": "n150"})(*ours)
    assert_close(result, double(*eager))
    assert_close(ours[0], eager[0])
    assert "shares elements with another input" in reports[0].fallbacks[0].reason
