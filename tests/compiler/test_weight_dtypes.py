"""The option weight_dtype: which weights go up in which block float, and that the values are theirs."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import pcc
from small_models import Feedforward
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

import tt_dynamo
from tt_dynamo.capture.inputs import parameter_name
from tt_dynamo.lowering import registry
from tt_dynamo.options import OptionError, Options

pytestmark = pytest.mark.usefixtures("clean_dynamo")
BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


def run(model: nn.Module, *inputs: torch.Tensor, **options: Any) -> tuple[Any, tt_dynamo.GraphReport]:
    """What the compiled model gives, and the report of its one graph."""
    torch._dynamo.reset()
    with tt_dynamo.record() as reports, torch.no_grad():
        outputs = torch.compile(model.eval(), backend="ttnn", options={"device": BOARD, **options})(*inputs)
    (report,) = reports
    assert not report.fallbacks
    return outputs, report


class SelfAttention(nn.Module):
    """x [batch, seq, 64] -> the same; queries, keys and values are merged into one product."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(64, 64) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (p(x).view(*x.shape[:2], 2, 32).transpose(1, 2) for p in (self.query, self.key, self.value))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Tied(nn.Module):
    """ids [batch, seq] -> [batch, seq, 96]; one table embeds and projects."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(96, 64)
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 96, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.embed(ids)))


def bytes_of(bits: float, *shapes: tuple[int, int]) -> int:
    return int(sum(rows * columns for rows, columns in shapes) * bits / 8)


@pytest.mark.parametrize(("dtype", "bits", "least"), [("bfloat8_b", 8.5, 0.999), ("bfloat4_b", 4.5, 0.98)])
def test_weights_of_products_go_up_in_it_and_nothing_else_does(dtype: str, bits: float, least: float) -> None:
    model, x = Feedforward(), torch.randn(32, 32)
    wide, report_wide = run(model, x)
    ours, report = run(model, x, weight_dtype=dtype)
    assert report_wide.weight_dtypes == {"bfloat16": 2 * (2 * 32 * 64 + 64 + 32 * 3)}
    assert report.weight_dtypes == {dtype: bytes_of(bits, (32, 64), (64, 32)), "bfloat16": 2 * (64 + 32 * 3)}
    assert report.weight_bytes == sum(report.weight_dtypes.values())
    assert report.device_programs == report_wide.device_programs, "block floats take no calls of their own"
    with torch.no_grad():
        expected = model(x)
    assert least <= pcc(ours, expected) < pcc(wide, expected)


def test_a_weight_has_the_values_that_a_block_float_holds() -> None:
    model = nn.Linear(32, 32, bias=False)
    with torch.no_grad():  # one large number among 16 that share its exponent: what is small beside it is lost
        model.weight.copy_(torch.full((32, 32), 0.001))
        model.weight[::16] = 1.0
    ours, _ = run(model, torch.eye(32), weight_dtype="bfloat8_b")
    assert ours[0, 0] == 1.0 and ours[0, 1] == 0.0
    wide, _ = run(model, torch.eye(32))
    assert wide[0, 1] > 0.0009


def test_the_first_pattern_that_fits_counts() -> None:
    model, x = nn.Sequential(Feedforward(), Feedforward()), torch.randn(4, 32)
    patterns = {"1.up": "bfloat16", "*.up": "bfloat4_b", "0.down.weight": "bfloat8_b"}
    _, report = run(model, x, weight_dtype=patterns)
    one, rest = (32, 64), 2 * 2 * (64 + 32 * 3)
    assert report.weight_dtypes == {
        "bfloat4_b": bytes_of(4.5, one),
        "bfloat8_b": bytes_of(8.5, one),
        "bfloat16": bytes_of(16, one, one) + rest,
    }
    _, report = run(model, x, weight_dtype={"*": "bfloat8_b", "*.up": "bfloat4_b"})
    assert report.weight_dtypes.keys() == {"bfloat8_b", "bfloat16"}


def test_a_merged_weight_is_one_of_its_parameters_dtypes_where_they_agree() -> None:
    model, x = SelfAttention(), torch.randn(1, 32, 64)
    patterns = {"query": "bfloat8_b", "key": "bfloat8_b", "value": "bfloat8_b"}
    ours, report = run(model, x, weight_dtype=patterns)
    assert report.weight_dtypes["bfloat8_b"] == bytes_of(8.5, (64, 192)) and not report.notes
    with torch.no_grad():
        assert pcc(ours, model(x)) > 0.99


def test_a_merged_weight_is_as_wide_as_its_widest_parameter_and_the_report_says_so() -> None:
    _, report = run(SelfAttention(), torch.randn(1, 32, 64), weight_dtype={"query": "bfloat4_b", "*": "bfloat8_b"})
    assert report.weight_dtypes["bfloat8_b"] == bytes_of(8.5, (64, 192), (64, 64))
    assert "bfloat4_b" not in report.weight_dtypes
    (note,) = report.notes
    assert "the widest of query.weight bfloat4_b, key.weight bfloat8_b, value.weight bfloat8_b" in note
    assert "merged weight is bfloat8_b" in " ".join(str(report).split())


@pytest.mark.parametrize("pattern", ["*", "head", "embed.weight"])
def test_a_tied_projection_has_a_copy_of_its_own_and_the_table_stays(pattern: str) -> None:
    model, ids = Tied(), torch.arange(32)[None]
    ours, report = run(model, ids, weight_dtype={pattern: "bfloat8_b"})
    assert report.weight_dtypes == {"bfloat16": 2 * (96 * 64 + 2 * 64), "bfloat8_b": bytes_of(8.5, (64, 96))}
    with torch.no_grad():
        assert pcc(ours, model(ids)) > 0.99


def test_transposed_weights_of_gpt_2() -> None:
    transformers = pytest.importorskip("transformers")
    model, x = transformers.pytorch_utils.Conv1D(96, 64).eval(), torch.randn(1, 32, 64)
    ours, report = run(model, x, weight_dtype="bfloat8_b")
    assert report.weight_dtypes["bfloat8_b"] == bytes_of(8.5, (64, 96))
    with torch.no_grad():
        assert pcc(ours, model(x)) > 0.999


def test_convolutions_and_products_of_activations_stay_in_bfloat16() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return y @ y.transpose(-1, -2)

    _, report = run(Model(), torch.randn(1, 3, 16, 16), weight_dtype="bfloat4_b")
    assert report.weight_dtypes.keys() == {"bfloat16"}


def test_a_changed_weight_goes_up_again_in_its_dtype() -> None:
    model, x = nn.Linear(32, 32), torch.randn(4, 32)
    compiled = torch.compile(model, backend="ttnn", options={"device": BOARD, "weight_dtype": "bfloat8_b"})
    with torch.no_grad():
        compiled(x)
        model.weight.mul_(-2)
        assert pcc(compiled(x), model(x)) > 0.99


def test_what_ttnn_refuses_in_a_block_float_it_gets_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    found = registry.find(tt_dynamo.ir.operators.linear)
    assert found is not None
    asked = []

    def choosy(ttnn: Any, x: Any, weight: Any, *rest: Any) -> Any:
        asked.append(weight.dtype.name)
        if weight.dtype.name == "BFLOAT8_B" and weight.shape[0] == 64:
            raise tt_dynamo.ir.errors.Unsupported("no block floats of 64 rows")
        return found.function(ttnn, x, weight, *rest)

    lowering = registry.Lowering(choosy, found.needs, found.gives)
    monkeypatch.setitem(registry._lowerings, tt_dynamo.ir.operators.linear, lowering)
    ours, report = run(Feedforward(), torch.randn(4, 32), weight_dtype="bfloat8_b")
    assert asked == ["BFLOAT8_B", "BFLOAT8_B", "BFLOAT8_B", "BFLOAT16"]
    assert report.weight_dtypes["bfloat8_b"] == bytes_of(8.5, (32, 64))
    (note,) = report.notes
    assert "its weight is bfloat16" in note and "no block floats of 64 rows" in note


def test_names_in_the_model() -> None:
    source = "L['self']._modules['layers']._modules['0']._modules['up_proj']._parameters['weight']"
    assert parameter_name(source) == "layers.0.up_proj.weight"
    assert parameter_name("G['model']._buffers['table']") == "table"
    assert parameter_name("L['x']") == ""


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no dtype": ({"weight_dtype": "bfloat8"}, "unknown weight_dtype 'bfloat8'; did you mean 'bfloat8_b'"),
    "no dtype in a mapping": ({"weight_dtype": {"*": "bfp4"}}, "unknown weight_dtype 'bfp4'; valid are"),
    "torch's dtype": ({"weight_dtype": torch.bfloat16}, "unknown weight_dtype torch.bfloat16"),
    "no pattern": ({"weight_dtype": {3: "bfloat16"}}, "3 is no pattern"),
    "no dtype of a cache": ({"cache_dtype": "bfloat8_a"}, "unknown cache_dtype 'bfloat8_a'; did you mean 'bfloat8_b'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_options(what: str) -> None:
    options, message = WRONG[what]
    with pytest.raises(OptionError, match=message):
        Options.parse(options)


def test_a_wrong_option_is_the_compilation_s_error() -> None:
    with pytest.raises(BackendCompilerFailed, match="unknown weight_dtype 'float8'"):
        run(Feedforward(), torch.randn(4, 32), weight_dtype="float8")


def test_options_are_values() -> None:
    options = Options.parse({"weight_dtype": {"*": "bfloat8_b"}, "cache_dtype": "bfloat8_b"})
    assert hash(options) == hash(Options.parse({"weight_dtype": {"*": "bfloat8_b"}, "cache_dtype": "bfloat8_b"}))
