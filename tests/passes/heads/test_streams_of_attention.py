"""Attention of two streams takes and gives each by itself, unless something else reads what is joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captured import Captured, capture, random

from tt_dynamo.ir import operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.attention.heads import fuse_merge_heads
from tt_dynamo.passes.attention.rotary import fuse_rotary
from tt_dynamo.passes.heads.joint_attention import fuse_joint_attention
from tt_dynamo.passes.normalize.canonicalize import canonicalize

TEXT, IMAGE, WIDTH = 3, 5, 64
INPUTS = [random(2, 2, rows, 32) + at for rows in (TEXT, IMAGE) for at in range(3)]
Parts = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
PARTS: dict[str, Parts] = {
    "slices": lambda x: (x[:, :TEXT], x[:, TEXT:]),
    "split": lambda x: x.split([TEXT, IMAGE], 1),
}


def joined(parts: Parts, turn: Any = lambda x: x, mask: torch.Tensor | None = None) -> Callable[..., Any]:
    def forward(q1: Any, k1: Any, v1: Any, q2: Any, k2: Any, v2: Any) -> Any:
        q, k, v = (torch.cat(both, 2) for both in ((q1, q2), (k1, k2), (v1, v2)))
        y = F.scaled_dot_product_attention(turn(q), turn(k), v, mask).transpose(1, 2).flatten(2)
        return [torch.sin(part) for part in parts(y)]

    return forward


def prepared(forward: Callable[..., Any]) -> Captured:
    graph = capture(forward, *INPUTS)
    graph.apply(canonicalize, fuse_rotary, fuse_merge_heads, exact=False)
    return graph


def turned(x: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of halves by angles that a constant holds."""
    angles = torch.linspace(0, 3, (TEXT + IMAGE) * 16).reshape(1, 1, -1, 16).repeat(1, 1, 1, 2)
    first, second = x.chunk(2, -1)
    return x * angles.cos() + torch.cat((-second, first), -1) * angles.sin()


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("turn", [lambda x: x, turned], ids=["as they are", "turned"])
def test_streams_are_neither_joined_nor_cut(parts: str, turn: Any) -> None:
    graph = prepared(joined(PARTS[parts], turn))
    assert graph.apply(fuse_joint_attention, exact=False) == 1
    assert len(graph.calls(operators.joint_attention)) == 1
    assert not [node for node in graph.calls(aten.cat.default) if len(node.meta["val"].shape) == 4]
    turns = graph.calls(operators.rotary)
    assert len(turns) == (4 if turn is turned else 0)
    assert len({node.args[1] for node in turns}) <= 2, "query and key share the rows of the tables"


OTHERS: dict[str, Callable[..., Any]] = {
    "cut elsewhere": joined(lambda x: (x[:, :IMAGE], x[:, IMAGE:])),
    "read whole too": joined(lambda x: (x[:, :TEXT], x)),
    "one stream": joined(lambda x: (x[:, :TEXT],)),
    "a mask": joined(PARTS["slices"], mask=torch.ones(TEXT + IMAGE, TEXT + IMAGE).tril().log()),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_attention_stays_joined(case: str) -> None:
    assert prepared(OTHERS[case]).apply(fuse_joint_attention) == 0
