"""Operations that stay on the host, and the reason that a report gives; the answer is eager torch's all the same."""

import pytest
import torch
from compiled import falls_back, random

X, ROWS = random(3, 33), random(40, 40, 128)
NO_LOWERING = "has no lowering"

STAYING = {
    "an exponent whose oddness TTNN cannot see": (lambda x: x**40001, torch.tensor([[1.0, -1.0]]), "32767"),
    "powers of a negative number": (lambda x: (-2.0) ** x, torch.tensor([[2.0, 3.0]]), "positive"),
    "an order of NaNs": (lambda x: -x <= -x, torch.tensor([[0.0, -1.0, float("inf"), float("nan")]]), "itself"),
    "a logit limited the wrong way round": (lambda x: torch.logit(torch.sigmoid(x), 0.6), X, "wrong way round"),
    "sums of integers": (lambda x: torch.relu(x).argmax(-1).sum(0), random(300, 4, 512), "integer"),
    "a variance of nothing": (lambda x: x.var(0, correction=2), random(2, 3), "leaves nothing of 2 elements"),
    "sorted integers": (lambda x: torch.relu(x).argmax(-1).sort(0)[0][:2], ROWS, "integer"),
    "median": (lambda x: torch.relu(x).median(1)[0], X, NO_LOWERING),
    "mode": (lambda x: torch.relu(x).mode(1)[0], X, NO_LOWERING),
    "cummax": (lambda x: torch.relu(x).cummax(1), X, NO_LOWERING),
    "the largest so far": (lambda x: torch.relu(x).cummax(1)[0], X, NO_LOWERING),
    "logcumsumexp": (lambda x: torch.relu(x).logcumsumexp(1), X, NO_LOWERING),
    "what depends on contents": (lambda x: torch.masked_scatter(torch.relu(x), x > 0, x), X, "masked_scatter"),
}


@pytest.mark.parametrize("name", STAYING)
def test_it_falls_back_for_its_reason(name):
    model, x, words = STAYING[name]
    assert words in falls_back(model, x).reason
