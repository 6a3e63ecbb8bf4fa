"""A dimension that rows are selected of comes to the front once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.moves.leading_selects import lead_selects

Tensor = torch.Tensor


def test_layers_select_whole_tiles_of_one_permute() -> None:
    def layers(x: Tensor) -> tuple[Tensor, ...]:
        x = x * 2
        return x[:, :, 0] + 1, x[:, :, 1].exp(), x[:, :, -1], x.sum(2)

    graph = capture(layers, random(2, 6, 3, 8))
    assert graph.apply(lead_selects) == 1
    assert graph.only(aten.permute.default).args[1] == [2, 0, 1, 3]
    assert {node.args[1:] for node in graph.calls(aten.select.int)} == {(0, 0), (0, 1), (0, 2)}


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x[:, :, 1] * 2,  # of one, the permute is as much
        lambda x: (x[:, :, 1] * 2, x[:, :, 1] + 1),
        lambda x: ((y := torch.cat([x, x], 2).exp())[:, :, 0], y[:, :, 1]),  # two of six rows
        lambda x: (x[:, 0] * 2, x[:, 1] + 1),  # these are whole tiles
        lambda x: (x[..., 0] * 2, x[..., 1] + 1),
        lambda x: (x.long()[:, :, 0], x.long()[:, :, 1]),
    ],
)
def test_other_selects_stay(forward: Callable[..., Tensor]) -> None:
    assert capture(forward, random(2, 6, 3, 8)).apply(lead_selects) == 0
