"""nn.LSTM, nn.GRU and nn.RNN: named where Dynamo skips them, whole on the device where it may trace them."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from comparison import pcc
from torch import nn

import tt_dynamo
from tt_dynamo.capture import skipped

pytestmark = pytest.mark.usefixtures("board_device", "clean_dynamo")


class Tagger(nn.Module):
    def __init__(self, kind: Any, head: bool = True, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.layers = nn.Linear(16, 32), kind(32, 32, batch_first=True, **options)
        self.head = nn.LazyLinear(8) if head else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embed(x).relu())[0])


def run(model: nn.Module, tokens: int) -> tuple[float, tt_dynamo.GraphReport]:
    """The PCC with eager torch, and the report of the one graph."""
    torch._dynamo.reset()
    x = torch.randn(2, tokens, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), tt_dynamo.record() as reports:
        expected = model.eval()(x)
        outputs = torch.compile(model, backend="ttnn", dynamic=False)(x)
    (report,) = reports
    return pcc(outputs, expected), report


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.LSTM, {}),
        (nn.LSTM, {"bidirectional": True, "num_layers": 2}),
        (nn.LSTM, {"bias": False}),
        (nn.GRU, {}),
        (nn.RNN, {}),
    ],
)
def test_layers_that_dynamo_may_trace_run_on_the_device(kind: Any, options: Any) -> None:
    with torch._dynamo.config.patch(allow_rnn=True):
        likeness, report = run(Tagger(kind, **options), tokens=5)
    assert not report.fallbacks
    assert likeness >= 0.999


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_launches_grow_as_the_tokens_and_no_faster(kind: Any) -> None:
    with torch._dynamo.config.patch(allow_rnn=True):
        few, some, more = (run(Tagger(kind), tokens)[1].device_programs for tokens in (4, 6, 8))
    assert more - some <= some - few


def test_layers_that_dynamo_skips_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    skipped._warn_once.cache_clear()
    x = torch.randn(2, 5, 16)
    with torch.no_grad(), caplog.at_level(logging.WARNING, "tt_dynamo"):
        for head in (False, True):
            torch.compile(Tagger(nn.LSTM, head).eval(), backend="ttnn")(x)
    (record,) = [record for record in caplog.records if "allow_rnn = True" in record.message]
    assert "nn.LSTM" in record.message
