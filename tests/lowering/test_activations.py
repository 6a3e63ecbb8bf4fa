"""Derivatives of activations."""

import pytest
import torch
import torch.nn.functional as F
from compiled import BOARD, close, random
from lowering_tables.activations import ACTIVATIONS

import tt_dynamo

DIFFERENTIABLE = {
    **{name: function for name, (function, _) in ACTIVATIONS.items()},
    "logit": lambda x: torch.logit(torch.sigmoid(x), eps=0.25),
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
