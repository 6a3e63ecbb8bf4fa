"""Activations."""

import torch
import torch.nn.functional as F
from compiled import random
from torch import nn

from tt_dynamo.lowering import activations

from .row import Row, bind

X = random(3, 33)
ENDS = torch.tensor([[0.0, -0.0, 1.0, -1.0, 20.0, -6.0, -20.0, 100.0, -100.0, float("inf"), float("nan")]])

ACTIVATIONS = {
    "elu": (bind(F.elu, alpha=0.5), "elu"),
    "celu": (bind(F.celu, alpha=0.5), "celu"),
    "selu": (F.selu, "selu"),
    "leaky_relu": (bind(F.leaky_relu, 0.25), "leaky_relu"),
    "relu6": (F.relu6, "hardtanh"),
    "hardtanh": (bind(F.hardtanh, -0.5, 1.5), "hardtanh"),
    "threshold": (bind(F.threshold, 0.75, -3.0), "threshold"),
    "log_sigmoid_forward": (F.logsigmoid, "log_sigmoid"),
    "rrelu_with_noise": (bind(F.rrelu, 0.25, 0.5), "leaky_relu"),
}


def _prelu(channels: int) -> nn.PReLU:
    module = nn.PReLU(channels)
    module.weight.data.copy_(torch.linspace(0.25, 1.0, channels).bfloat16())
    return module


def _snake(channels: int, at: int) -> nn.Module:
    """A snake of `channels` in dimension `at` of three."""
    module = nn.Module()
    row = [channels if dim == at else 1 for dim in range(3)]
    module.alpha = nn.Parameter(torch.linspace(0.25, 8.0, channels).bfloat16().float().reshape(row))
    module.forward = lambda x: x + torch.sin(x * module.alpha) ** 2 / (module.alpha + 1e-9)
    return module


def _softplus(beta: float, threshold: float) -> Row:
    function = bind(F.softplus, beta=beta, threshold=threshold)
    return Row(
        f"softplus: beta {beta}, threshold {threshold}",
        function,
        ENDS,
        "add" if (beta, threshold) == (1, 20) else "typecast softplus typecast",
        code=("LOG1P",) if (beta, threshold) == (1, 20) else ("ttnn.float32",),
    )


ROWS = [
    *(Row(f"{target}", bind(target), X, call) for target, call in activations.UNARY.items()),
    Row("gelu: exact", F.gelu, X, "gelu", code=("GeluVariant.Accurate",)),
    Row("gelu: by tanh", bind(F.gelu, approximate="tanh"), X, "gelu", code=("GeluVariant.Tanh",)),
    *(
        row
        for name, (function, call) in ACTIVATIONS.items()
        for row in [
            Row(f"{name}: of a sum", bind(lambda x, function: function(-x), function), random(3, 33, scale=2.0),
                f"neg {call}", roundings=2),
            Row(f"{name}: of large numbers", function, ENDS, call),
        ]
    ),
    Row("logit", lambda x: torch.logit(torch.sigmoid(-x), eps=0.25), random(3, 33, scale=2.0), "neg sigmoid logit",
        roundings=2, cancels=True),
    Row("hardshrink", bind(F.hardshrink, 0.75), X, "abs le where", roundings=3),
    Row("softshrink", bind(F.softshrink, 0.75), X, "abs gt sign multiply subtract multiply where", roundings=3),
    _softplus(1, 20),
    _softplus(2.0, 1.0),
    Row("_prelu_kernel: one slope", _prelu(1), random(2, 5, 3, 4), "ltz multiply where"),
    Row("_prelu_kernel: a slope a channel", _prelu(5), random(2, 5, 3, 4), "ltz multiply where"),
    Row("snake: a signal", _snake(33, 2), random(2, 5, 33, scale=4.0), "snake_beta"),
    Row("glu: the first dimension", bind(F.glu, 0), random(4, 6), "slice to_layout slice to_layout sigmoid multiply",
        roundings=2),
    Row("glu: the last dimension", bind(F.glu, -1), random(4, 6), "slice to_layout slice to_layout sigmoid multiply",
        roundings=2),
]  # fmt: skip
