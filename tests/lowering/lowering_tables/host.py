"""Operations that stay on the host for a reason of their own."""

import torch
import torch.nn.functional as F
from compiled import random

from .row import Row

X, ROWS_OF_INTEGERS = random(3, 33), random(40, 40, 128)
INF, NAN = float("inf"), float("nan")

# the calls are those of what the device computes before
STAYING = {
    "pow: an exponent whose oddness TTNN cannot see": (lambda x: x**40001, torch.tensor([[1.0, -1.0]]), "", "32767"),
    "pow: of a negative number": (lambda x: (-2.0) ** x, torch.tensor([[2.0, 3.0]]), "", "positive"),
    "le: an order of NaNs": (lambda x: -x <= -x, torch.tensor([[0.0, -1.0, INF, NAN]]), "neg", "itself"),
    "logit: limited the wrong way round": (lambda x: torch.logit(torch.sigmoid(x), 0.6), X, "sigmoid",
        "wrong way round"),
    "sum: integers": (lambda x: torch.relu(x).argmax(-1).sum(0), random(300, 4, 512), "relu to_layout argmax typecast",
        "integer"),
    "var: of nothing": (lambda x: x.var(0, correction=2), random(2, 3), "", "leaves nothing of 2 elements"),
    "sort: integers": (lambda x: torch.relu(x).argmax(-1).sort(0)[0][:2], ROWS_OF_INTEGERS,
        "relu to_layout argmax typecast", "integer"),
    "median": (lambda x: torch.relu(x).median(1)[0], X, "relu", "has no lowering"),
    "mode": (lambda x: torch.relu(x).mode(1)[0], X, "relu", "has no lowering"),
    "cummax": (lambda x: torch.relu(x).cummax(1), X, "relu", "has no lowering"),
    "cummax: the largest alone": (lambda x: torch.relu(x).cummax(1)[0], X, "relu", "has no lowering"),
    "logcumsumexp": (lambda x: torch.relu(x).logcumsumexp(1), X, "relu", "has no lowering"),
    "binary_cross_entropy: near 1": (F.binary_cross_entropy, (torch.tensor([0.999, 0.5]), torch.tensor([0.0, 1.0])), "",
        "binary_cross_entropy_with_logits"),
}  # fmt: skip

ROWS = [Row(name, function, x, calls, (reason,), roundings=2) for name, (function, x, calls, reason) in STAYING.items()]
