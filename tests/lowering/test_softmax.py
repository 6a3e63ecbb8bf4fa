"""Softmax, its logarithm and their gradients."""

import pytest
import torch
import torch.nn.functional as F
from compiled import calls, check, compiled, random

aten = torch.ops.aten
SHAPES = [(1,), (33,), (5, 33), (2, 3, 33), (2, 3, 4, 5), (2, 1, 3, 2, 5), (2, 1, 2, 3, 2, 5)]
INF = float("inf")


@pytest.fixture
def x():
    return random(2, 3, 5, 33)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "call"), [("softmax", "softmax"), ("log_softmax", "moreh_logsoftmax")])
def test_one_call_runs_over_any_dimension(name, call, shape):
    dims = sorted({0, len(shape) // 2, -1})
    report = check(lambda x: tuple(getattr(torch, name)(x, dim) for dim in dims), random(*shape))
    assert set(calls(report)) == {call}


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_large_numbers_do_not_overflow(name, x):
    check(lambda x: getattr(torch, name)(x, -1), x * 256)


def test_what_is_masked_is_zero(x):
    check(lambda x: torch.softmax(x.masked_fill(torch.relu(x) > 0.5, -INF), -1), x)
    check(lambda x: torch.log_softmax(x.masked_fill(torch.relu(x) > 0.5, -INF), -1), x)


def test_a_row_that_is_masked_whole_is_eagers(x):
    x = x.clone()
    x[0, 1] = -INF
    check(lambda x: (torch.softmax(x, -1), torch.log_softmax(x, -1), aten._safe_softmax(x, -1)), x)


@pytest.mark.parametrize("dim", [0, -1])
def test_a_single_number_has_all_the_weight(dim):
    check(lambda x: (x.softmax(dim), x.log_softmax(dim)), torch.tensor(1.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dtype_is_that_of_the_result(dtype, x):
    outputs, report = compiled(lambda x: (x.softmax(1, dtype=dtype), x.log_softmax(1, dtype=dtype)), x.bfloat16())
    assert not report.fallbacks and {output.dtype for output in outputs} == {dtype}
    torch.testing.assert_close(outputs[0].float(), x.softmax(1), rtol=2**-7, atol=0)


def test_softmin_is_the_softmax_of_the_negative(x):
    check(lambda x: F.softmin(x, 1), x)


@pytest.mark.parametrize("dim", [0, 1, -2, -1])
@pytest.mark.parametrize(
    ("backward", "forward", "call"),
    [
        (aten._softmax_backward_data, torch.softmax, "moreh_softmax_backward"),
        (aten._log_softmax_backward_data, torch.log_softmax, "moreh_logsoftmax_backward"),
    ],
    ids=["softmax", "log_softmax"],
)
def test_a_gradient_is_one_call(backward, forward, call, dim, x):
    output = forward(x, dim).bfloat16().float()
    gradient = random(3, 2, 33, 5).reshape(x.shape)
    report = check(lambda g, y: backward(g, y, dim, torch.float32), gradient, output, cancels=True)
    assert calls(report) == [call]
