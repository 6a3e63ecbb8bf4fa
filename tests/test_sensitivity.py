"""Which weights may be narrower: PCC that each loses, and dtypes that keep the PCC that is asked for."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from comparison import pcc
from small_models import Feedforward
from torch import nn

import tt_dynamo
from tt_dynamo.__main__ import main

pytestmark = pytest.mark.usefixtures("clean_dynamo")
BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


class Uneven(nn.Module):
    """Two layers side by side, of which `loud` makes nearly all of the result. x [rows, 64] -> [rows, 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.loud, self.quiet = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
        with torch.no_grad():
            self.quiet.weight *= 0.01

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.loud(torch.tanh(x)) + self.quiet(x)


class Tied(nn.Module):
    """ids [batch, seq] -> [batch, seq, 96]; one table embeds and projects."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(96, 64), nn.Linear(64, 96, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.embed(ids)))


def found(model: nn.Module, *inputs: torch.Tensor, **options: Any) -> tt_dynamo.Sensitivity:
    return tt_dynamo.sensitivity(model.eval(), inputs, device=BOARD, **options)


def test_the_weight_that_counts_stays_wide_and_the_other_gets_narrow() -> None:
    model, x = Uneven(), torch.randn(64, 64)
    result = found(model, x, pcc=0.9999)
    loud, quiet = result.weights
    assert (loud.name, loud.elements) == ("loud.weight", 64 * 64)
    assert loud.lost["bfloat4_b"] > 10 * loud.lost["bfloat8_b"] > 0
    assert loud.lost["bfloat4_b"] > 100 * quiet.lost["bfloat4_b"]
    assert result.weight_dtype == {"loud.weight": "bfloat8_b", "quiet.weight": "bfloat4_b"}
    assert result.reached >= 0.9999
    assert result.weight_bytes == 64 * 64 * (17 + 9) // 16


def test_a_loss_is_that_of_the_compiled_model_with_this_weight_alone() -> None:
    model, x = Uneven().eval(), torch.randn(64, 64)
    loud, _ = found(model, x).weights

    def ours(dtype: str) -> float:
        torch._dynamo.reset()
        options = {"device": BOARD, "weight_dtype": {"loud.weight": dtype}}
        with torch.no_grad():
            return pcc(torch.compile(model, backend="ttnn", options=options)(x), model(x))

    assert ours("bfloat16") - ours("bfloat4_b") == pytest.approx(loud.lost["bfloat4_b"], rel=0.05)


def test_the_option_reads_what_is_written_and_reaches_what_was_asked_for() -> None:
    model, x = nn.Sequential(Feedforward(), Feedforward()).eval(), torch.randn(64, 32)
    result = found(model, x, pcc=0.999)
    mapping = json.loads(result.to_json())
    torch._dynamo.reset()
    with torch.no_grad(), tt_dynamo.record() as reports:
        compiled = torch.compile(model, backend="ttnn", options={"device": BOARD, "weight_dtype": mapping})
        assert pcc(compiled(x), model(x)) == pytest.approx(result.reached, abs=1e-6)
    assert result.reached >= 0.999
    assert reports[0].weight_dtypes.keys() - {"bfloat16"}, "something is narrower"


def test_what_the_device_loses_beside_weights_makes_them_wider() -> None:
    model, x = Uneven(), torch.randn(64, 64)
    low = {"math_fidelity": "LoFi", "fp32_accumulation": False}
    near = found(model, x, pcc=0.999).weight_dtype
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):  # each is compiled by itself
        result = found(model, x, pcc=0.99999, **low)
    assert near["loud.weight"] == "bfloat8_b"
    assert result.weight_dtype == {"loud.weight": "bfloat16", "quiet.weight": "bfloat16"}
    assert result.reached < 0.99999 and "weights are not what it loses by" in str(result)


def test_a_tied_table_is_one_weight_and_its_embedding_stays() -> None:
    model, ids = Tied(), torch.arange(64)[None]
    result = found(model, ids, pcc=0.9)
    assert [weight.name for weight in result.weights] == ["embed.weight"]
    assert result.weight_dtype == {"embed.weight": "bfloat4_b"}
    assert result.weight_bytes == 96 * 64 * 2 + 96 * 64 * 9 // 16


@pytest.mark.parametrize(
    ("model", "message"),
    [(Feedforward().train(), "model.eval()"), (nn.LayerNorm(64).eval(), "no product of the model")],
    ids=["training", "no products"],
)
def test_what_has_no_sensitivity_raises(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tt_dynamo.sensitivity(model, (torch.zeros(4, 64),), device=BOARD)


def test_the_command_line_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "import torch\ndef made():\n    return torch.nn.Linear(32, 32).eval(), {'input': torch.randn(8, 32)}\n"
    (tmp_path / "my_model.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(
        sys, "argv", ["", "sensitivity", "my_model:made", "--output", "out.json", "--device", BOARD, "--pcc", "0.9"]
    )
    main()
    assert json.loads(Path("out.json").read_text()) == {"weight": "bfloat4_b"}
    shown = capsys.readouterr()
    assert "PCC lost in bfloat8_b" in shown.out and "weight 1 of 1: weight" in shown.err
