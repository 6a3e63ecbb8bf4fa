"""Nested tensors: a graph that takes them runs in eager torch, one that makes them of other inputs on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import check
from torch import Tensor

import tt_dynamo

pytestmark = [
    pytest.mark.usefixtures("clean_dynamo", "board_device"),
    pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype.*"),
]


def jagged(*lengths: int) -> Tensor:
    return torch.nested.nested_tensor([torch.randn(length, 8) for length in lengths], layout=torch.jagged)


NESTED: dict[str, Callable[..., Any]] = {
    "linear": lambda nested, w: F.linear(nested, w).relu(),
    "norm": lambda nested, w: (F.layer_norm(nested, (8,)) @ w).softmax(-1),
    "padded": lambda nested, w: (nested @ w).to_padded_tensor(0.0) @ w,
}


@pytest.mark.parametrize("dynamic", [None, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", NESTED)
def test_nested_tensors_run_in_eager_torch(name: str, dynamic: bool | None) -> None:
    compiled, w = torch.compile(NESTED[name], backend="ttnn", dynamic=dynamic), torch.randn(8, 8)
    with torch.no_grad(), tt_dynamo.record() as reports:
        for lengths in [(3, 5), (2, 2, 9), (3, 5)]:
            nested = jagged(*lengths)
            ours, eager = compiled(nested, w), NESTED[name](nested, w)
            plain = ours.values() if ours.is_nested else ours
            assert torch.equal(plain, eager.values() if eager.is_nested else eager)
    assert reports and all(f.reason.startswith("its size depends on values") for r in reports for f in r.fallbacks)
    assert all(report.fallbacks for report in reports)


def test_nested_tensors_within_a_graph_run_on_the_device() -> None:
    def model(x: Tensor) -> Tensor:
        nested = torch.nested.nested_tensor([x[:2], x[2:5]], layout=torch.jagged)
        return F.linear(nested, x).relu().values() @ x

    check(model, lambda: (torch.randn(8, 8),), options={"fallback": "error"})
