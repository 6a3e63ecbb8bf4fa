"""Inputs that a graph writes into stay on the device: the placed graph reads and writes them as states."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import Summed
from torch import nn
from torch.fx import Graph

import tt_dynamo
from tt_dynamo.ir import meta
from tt_dynamo.ir.spec import Spec

pytestmark = pytest.mark.usefixtures("clean_dynamo")
BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


class Rows(nn.Module):
    """Writes the row x [1, 2, 1, 32] at a position of its cache, and attends to all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cache", torch.zeros(1, 2, 32, 32))

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        self.cache.index_copy_(2, position, x)
        return self.cache.sum(2)


def placed(model: nn.Module, folder: Path, *calls: tuple[torch.Tensor, ...]) -> tuple[str, Any]:
    """The placed graph of a model after these calls, each as eager torch's, and the report."""
    expected = type(model)()
    with torch.no_grad(), tt_dynamo.record() as reports:
        compiled = torch.compile(model, backend="ttnn", options={"device": BOARD, "dump": str(folder)})
        for inputs in calls:
            torch.testing.assert_close(compiled(*inputs), expected(*inputs), rtol=0.02, atol=0.02)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, expected.get_buffer(name), rtol=0.02, atol=0.02)
    (path,) = (folder / "graph_0").glob("*_place_and_assign_layouts.py")
    return path.read_text(), reports[0]


def test_what_a_graph_writes_is_read_and_written_as_a_state(tmp_path: Path) -> None:
    text, report = placed(Summed(), tmp_path, (torch.ones(32, 32),), (torch.ones(32, 32),))
    assert text.count("tt_dynamo.state_read") == text.count("tt_dynamo.state_write") == 1
    assert "aten.copy_" in text, "a tensor of the user's gets all that was written"
    assert report.cache_bytes == 2 * 32 * 32


def test_of_a_written_row_only_that_row_comes_down(tmp_path: Path) -> None:
    calls = [(torch.full((1, 2, 1, 32), float(at)), torch.tensor([at])) for at in (3, 4)]
    text, report = placed(Rows(), tmp_path, *calls)
    assert text.count("tt_dynamo.state_write") == text.count("aten.index_copy_") == 1 and "aten.copy_" not in text
    assert all(transfer.bytes <= 2 * 2 * 32 for transfer in report.transfers if transfer.direction == "to_host")


def test_a_fact_is_noted_under_its_key() -> None:
    node = Graph().placeholder("x")
    assert node not in meta.spec and meta.layout.get(node, "TILE") == "TILE"
    with pytest.raises(KeyError):
        meta.spec(node)
    meta.spec.set(node, Spec((2, 3), "bfloat16", "TILE"))
    assert node in meta.spec and meta.spec(node) is node.meta["ttnn"]
