"""Decompositions of our own compute what they take apart, on the device whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from compiled import close, random
from compiling import run_compiled

aten = torch.ops.aten
IMAGE = (1, 4, 8, 9)

CASES = {
    "the distances of rows": (torch.pdist, [random(7, 33)]),
    "the largest distances of rows": (lambda x: torch.pdist(x, float("inf")), [random(7, 33)]),
    "the gradient of an average pool": (
        lambda grad, x: aten.avg_pool2d_backward(grad, x, [2, 2], [], [0, 0], False, True, None),
        [random(1, 4, 4, 4), random(*IMAGE)],
    ),
    "the gradient of windows that overlap, rounded up, over padding that counts": (
        lambda grad, x: aten.avg_pool2d_backward(grad, x, [3, 2], [2, 1], [1, 1], True, True, None),
        [random(1, 4, 5, 10), random(*IMAGE)],
    ),
    "the gradient of windows over padding that does not count": (
        lambda grad, x: aten.avg_pool2d_backward(grad, x, [3, 2], [2, 1], [1, 1], True, False, None),
        [random(1, 4, 5, 10), random(*IMAGE)],
    ),
    "the gradient of a pool with a divisor": (
        lambda grad, x: aten.avg_pool2d_backward(grad, x, [2, 2], [2, 2], [0, 0], False, True, 3),
        [random(4, 4, 4), random(4, 8, 9)],
    ),
    "the gradient of an adaptive pool": (
        lambda grad, x: aten._adaptive_avg_pool2d_backward(grad, x),
        [random(2, 4, 3, 2), random(2, 4, 8, 7)],
    ),
    "columns added up to images": (
        lambda x: F.fold(x, (7, 9), (3, 2), (1, 2), (1, 0), (2, 1)),
        [random(2, 4 * 6, 4 * 7)],
    ),
    "a unit triangular system": (
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=False, unitriangular=True),
        [random(2, 3, 40, 40, scale=0.0625), random(2, 3, 40, 7)],
    ),
    "an upper one from the right, of keys that are alike": (
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=True, left=False, unitriangular=True),
        [torch.ones(33, 33), random(4, 33)],
    ),
    "columns of one image": (lambda x: F.fold(x, (4, 4), 2, stride=2), [random(3 * 4, 4)]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_taken_apart_is_eagers_answer_on_the_device(case: str) -> None:
    function, tensors = CASES[case]
    found = run_compiled(function, tensors, placement="device")
    assert not found.report.fallbacks
    assert found.report.device_nodes
    close(found.outputs, function(*tensors), roundings=4, cancels=True)


def test_an_alias_of_an_input_costs_nothing() -> None:
    x = torch.randn(3, 4)
    found = run_compiled(aten.alias.default, [x], placement="device")
    assert found.report.nodes == 0
    assert found.outputs.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
