"""Activations and their derivatives."""

import pytest
import torch
import torch.nn.functional as F
from compiled import BOARD, calls, check, close, random
from torch import nn

import tt_dynamo
from tt_dynamo.lowering import activations

ENDS = torch.tensor([[0.0, -0.0, 1.0, -1.0, 20.0, -6.0, -20.0, 100.0, -100.0, float("inf"), float("nan")]])


@pytest.mark.parametrize("target", activations.UNARY, ids=str)
def test_an_activation_without_a_parameter_is_one_call(target):
    assert calls(check(lambda x: target(x), random(3, 33))) == [activations.UNARY[target]]


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_is_exact_or_by_tanh_as_asked(approximate):
    report = check(lambda x: F.gelu(x, approximate=approximate), random(3, 33))
    assert calls(report) == ["gelu"]
    assert ("GeluVariant.Tanh" in report.code) == (approximate == "tanh")


ACTIVATIONS = {
    "elu": (lambda x: F.elu(x, alpha=0.5), "elu"),
    "celu": (lambda x: F.celu(x, alpha=0.5), "celu"),
    "selu": (F.selu, "selu"),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.25), "leaky_relu"),
    "relu6": (F.relu6, "hardtanh"),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 1.5), "hardtanh"),
    "threshold": (lambda x: F.threshold(x, 0.75, -3.0), "threshold"),
    "logsigmoid": (F.logsigmoid, "log_sigmoid"),
    "logit": (lambda x: torch.logit(torch.sigmoid(x), eps=0.25), "logit"),
    "rrelu": (lambda x: F.rrelu(x, 0.25, 0.5), "leaky_relu"),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_with_parameters_is_one_call(name):
    function, expected = ACTIVATIONS[name]
    report = check(lambda x: function(-x), random(3, 33, scale=2.0), roundings=2, cancels=name == "logit")
    assert calls(report)[-1] == expected
    assert len(calls(report)) == (3 if name == "logit" else 2)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "logit"])
def test_an_activation_of_large_numbers_is_eagers(name):
    check(ACTIVATIONS[name][0], ENDS)


@pytest.mark.parametrize("operation", [F.hardshrink, F.softshrink])
def test_a_shrinkage_that_autograd_takes_apart_stays_on_the_device(operation):
    check(lambda x: operation(x, 0.75), random(3, 33), roundings=3)


@pytest.mark.parametrize("parameters", [{}, {"beta": 2.0, "threshold": 1.0}], ids=str)
def test_softplus_is_small_but_not_zero_far_below_zero(parameters):
    report = check(lambda x: F.softplus(x, **parameters), ENDS)
    assert calls(report) == ["typecast", "softplus", "typecast"]
    assert "ttnn.float32" in report.code


@pytest.mark.parametrize("channels", [1, 5])
def test_prelu_has_a_slope_for_each_channel(channels):
    module = nn.PReLU(channels)
    module.weight.data.copy_(torch.linspace(0.25, 1.0, channels).bfloat16())
    assert calls(check(module, random(2, 5, 3, 4))) == ["ltz", "multiply", "where"]


def test_glu_halves_any_dimension():
    for dim in (0, -1):
        check(lambda x, dim=dim: F.glu(x, dim), random(4, 6), roundings=2)


DIFFERENTIABLE = {
    **{name: function for name, (function, _) in ACTIVATIONS.items()},
    "relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "silu": F.silu, "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"), "hardsigmoid": F.hardsigmoid, "hardswish": F.hardswish,
    "mish": F.mish, "softplus": F.softplus, "glu": F.glu, "softsign": F.softsign, "tanhshrink": F.tanhshrink,
    "prelu": lambda x: F.prelu(x, x.new_full((1,), 0.25)), "pow": lambda x: (x.abs() + 0.5) ** 1.5,
    "where": lambda x: torch.where(x > 0, x * 2, x / 2), "clamp": lambda x: x.clamp(-0.5, 0.5),
    "division": lambda x: x / (x.abs() + 1), "maximum": lambda x: torch.maximum(x, x.flip(0) * 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_eagers_and_computed_on_the_device(name):
    torch._dynamo.reset()
    function = DIFFERENTIABLE[name]
    x, grad = random(3, 34).requires_grad_(), None
    compiled = torch.compile(function, backend="ttnn", dynamic=False, options={"device": BOARD})
    with tt_dynamo.record() as reports:
        result = compiled(x)
        grad = random(*reversed(result.shape)).T.contiguous()
        result.backward(grad)
    ours = x.grad
    x.grad = None
    function(x).backward(grad)
    close(ours, x.grad, roundings=6, cancels=True)
    assert not [fallback for report in reports for fallback in report.fallbacks]
