"""Linear attention is one operator however its sum of weights is spelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captured import capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.heads import fuse_merge_heads
from tt_dynamo.passes.attention.linear_attention import fuse_linear_attention
from tt_dynamo.passes.heads.qkv import fuse_qkv
from tt_dynamo.passes.normalize.canonicalize import canonicalize

HEADS, WIDTH = 2, 64
QUERY, KEY, VALUE = (random(2, 40, WIDTH) for _ in range(3))
Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def rows(*projected: torch.Tensor, pad: float = 1.0) -> torch.Tensor:
    """As EfficientViT writes it: heads [batch, heads, seq, head_dim]."""
    q, k, v = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in projected)
    out = F.relu(q) @ (F.relu(k).transpose(-1, -2) @ F.pad(v, (0, 1), value=pad))
    out = out[..., :-1] / (out[..., -1:] + 1e-6)
    return out.transpose(1, 2).flatten(2)


def columns(*projected: torch.Tensor) -> torch.Tensor:
    """As Sana writes it: heads [batch, heads, head_dim, seq]."""
    q, k, v = (x.transpose(1, 2).unflatten(1, (HEADS, -1)) for x in projected)
    out = torch.matmul(torch.matmul(F.pad(v, (0, 0, 0, 1), value=1.0), F.relu(k).transpose(2, 3)), F.relu(q))
    out = out[:, :, :-1] / (out[:, :, -1:] + 1e-6)
    return out.flatten(1, 2).transpose(1, 2)


class Attention(torch.nn.Module):
    def __init__(self, attend: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.q, self.k, self.v = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.attend = attend

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attend(self.q(x), self.k(x), self.v(x))


@pytest.mark.parametrize("attend", [rows, columns])
def test_it_is_one_operator_of_heads_that_one_kernel_splits_and_one_merges(attend: Any) -> None:
    graph = capture(Attention(attend), QUERY)
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fuse_linear_attention, exact=False) == 1
    assert not graph.calls(aten.constant_pad_nd.default, aten.matmul.default, aten.slice.Tensor)
    graph.apply(fuse_qkv, exact=False)
    graph.apply(fuse_merge_heads, exact=False)
    assert len(graph.calls(operators.split_heads)) == len(graph.calls(operators.merge_heads)) == 1
    assert not graph.calls(aten.permute.default)[3:], "the three weights are transposed, and nothing else"


def read_again(*projected: torch.Tensor) -> Any:
    q, k, v = projected
    out = q @ (k.mT @ F.pad(v, (0, 1), value=1.0))
    return out[..., :-1] / (out[..., -1:] + 1e-6), out.exp()


OTHERS: dict[str, Callable[..., Any]] = {
    "a column of twos": lambda q, k, v: rows(q, k, v, pad=2.0),
    "results that something else reads": read_again,
    "two columns": lambda q, k, v: (y := q @ (k.mT @ F.pad(v, (0, 2), value=1.0)))[..., :-1] / (y[..., -1:] + 1e-6),
    "the first column": lambda q, k, v: (y := q @ (k.mT @ F.pad(v, (1, 0), value=1.0)))[..., 1:] / (y[..., :1] + 1e-6),
    "a softmax": lambda q, k, v: F.scaled_dot_product_attention(q, k, v) / (v[..., -1:] + 1e-6),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_quotients_stay(case: str) -> None:
    graph = capture(lambda q, k, v: OTHERS[case](q, k, v), QUERY.abs(), KEY.abs(), VALUE)
    graph.apply(canonicalize, exact=False)
    assert graph.apply(fuse_linear_attention, exact=False) == 0
