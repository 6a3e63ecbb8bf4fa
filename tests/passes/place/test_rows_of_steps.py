"""What enters the shards of a decode step's row, stays in them and leaves them without a move."""

from __future__ import annotations

import torch
from captured import random
from test_assign_memory import assigned
from torch import nn

from tt_dynamo.ir import meta, operators
from tt_dynamo.ir.graph import aten
from tt_dynamo.ir.spec import Columns, Interleaved

WIDTH = 1024


class Streams(nn.Module):
    """The first of four rows of a token goes through two products, and changes all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norms = nn.ModuleList([nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)])

    def forward(self, rows: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        rows = rows.exp()  # which ties no streams
        x = rows[:, :1]
        y = (x + self.first(self.norms[0](x))) / 2**0.5
        y = y + self.second(self.norms[1](y))
        return torch.addcmul(rows, y - x, column)


def test_a_cut_enters_shards_and_a_sum_that_is_read_elsewhere_is_written_interleaved() -> None:
    _, nodes = assigned(Streams(), random(1, 4, WIDTH), random(1, 4, 1), is_step=True)
    lies = {node.target: meta.memory(node) for node in nodes}
    assert isinstance(lies[aten.slice.Tensor], Columns)
    assert isinstance(lies[operators.scaled_sum], Columns)
    assert isinstance(lies[aten.sub.Tensor], Interleaved)
    assert aten.addcmul.default not in lies


def test_nothing_of_a_prompt_does() -> None:
    assert not assigned(Streams(), random(1, 4, WIDTH), random(1, 4, 1))[1]
