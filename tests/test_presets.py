"""The option preset: which options each stands for, and what of a model's values each keeps."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from comparison import pcc
from torch import nn

import tt_dynamo
from tt_dynamo import options
from tt_dynamo.options import DEFAULT_PRESET, OptionError, Options, presets

BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


class Gated(nn.Module):
    """A gated feedforward. x [rows, 64] -> [rows, 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(64, 128, bias=False), nn.Linear(64, 128, bias=False)
        self.down_proj = nn.Linear(128, 64, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset that users have by default, as it was when this file was imported."""
    monkeypatch.setattr(options, "DEFAULT_PRESET", DEFAULT_PRESET)


@pytest.mark.usefixtures("default")
def test_without_a_preset_options_are_those_of_balanced() -> None:
    assert Options.parse({}) == Options.parse({"preset": "balanced"})
    assert Options.parse({"gelu": "FastLut"}) == Options.parse({"preset": "balanced", "gelu": "FastLut"})
    assert Options.parse({}).notes == []


@pytest.mark.usefixtures("default")
def test_without_a_preset_weights_that_are_trained_keep_their_bits() -> None:
    accuracy = Options.parse({"preset": "accuracy"})
    assert Options.parse({}).for_gradients() == accuracy
    assert Options.parse({"weight_dtype": "bfloat8_b"}).for_gradients().weight_dtype == "bfloat8_b"
    assert Options.parse({"preset": "balanced"}).for_gradients() == Options.parse({"preset": "balanced"})


@pytest.mark.usefixtures("default", "clean_dynamo")
def test_the_default_narrows_weights_of_inference_alone() -> None:
    model, x = Gated(), torch.randn(32, 64)
    with tt_dynamo.record() as reports:
        compiled = torch.compile(model, backend="ttnn", options={"device": BOARD})
        compiled(x).sum().backward()
        with torch.no_grad():
            compiled(x)
    forward, *_, inference = reports
    assert set(forward.weight_dtypes) == {"bfloat16"}
    assert set(inference.weight_dtypes) == {"bfloat8_b"}


def test_single_options_override_a_preset() -> None:
    parsed = Options.parse({"preset": "balanced", "math_fidelity": "HiFi4", "weight_dtype": {"head": "bfloat4_b"}})
    assert (parsed.math_fidelity, parsed.cache_dtype) == ("HiFi4", "bfloat8_b")
    assert parsed.weight_dtype == (("head", "bfloat4_b"),)
    assert parsed.notes == [
        "preset 'balanced': weight_dtype {'head': 'bfloat4_b'}, cache_dtype bfloat8_b, activation_dtype bfloat16, "
        "math_fidelity HiFi4, fp32_accumulation {'*self_attn*': True, '*': False}, gelu Accurate"
    ]


@pytest.mark.parametrize("name", presets())
def test_presets_are_values(name: str) -> None:
    assert hash(Options.parse({"preset": name})) == hash(Options.parse({"preset": name}))


@pytest.mark.parametrize(
    ("given", "message"),
    [("blanced", "unknown preset 'blanced'; did you mean 'balanced'"), (3, "unknown preset 3; valid are 'accuracy'")],
)
def test_an_unknown_preset_raises_with_the_nearest_one(given: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Options.parse({"preset": given})


@pytest.mark.usefixtures("clean_dynamo")
def test_each_preset_is_compiled_and_noted_and_keeps_less_than_the_one_before() -> None:
    model, x = nn.Sequential(Gated(), Gated()), torch.randn(32, 64)
    errors, sizes, notes = [], [], []
    for preset in ("accuracy", "balanced", "performance"):
        torch._dynamo.reset()
        with torch.no_grad(), tt_dynamo.record() as reports:
            ours = torch.compile(model, backend="ttnn", options={"device": BOARD, "preset": preset})(x)
            errors.append(1 - pcc(ours, model(x)))
        (report,) = reports
        assert not report.fallbacks
        sizes.append(report.weight_dtypes)
        notes.append(any(f"preset {preset!r}" in note for note in report.notes))
    matrix = 64 * 128
    assert sizes == [
        {"bfloat16": 6 * matrix * 2},
        {"bfloat8_b": 6 * matrix * 17 // 16},
        {"bfloat4_b": 4 * matrix * 9 // 16, "bfloat8_b": 2 * matrix * 17 // 16},
    ]
    assert notes == [False, True, True]
    assert errors[0] < errors[1] < errors[2]
    assert errors[1] < 1e-3


@pytest.mark.usefixtures("clean_dynamo")
def test_lofi_is_for_linear_layers_and_everything_else_runs_in_hifi2() -> None:
    """Products by weights lose bits in LoFi; norms and attention give what they give in HiFi2."""
    linear, norm = nn.Linear(64, 64), nn.LayerNorm(64)
    nn.init.normal_(norm.weight)
    x = torch.randn(1, 2, 32, 64)

    def ours(call: Any, fidelity: str) -> torch.Tensor:
        torch._dynamo.reset()
        with torch.no_grad():
            return torch.compile(call, backend="ttnn", options={"device": BOARD, "math_fidelity": fidelity})(x)

    assert not torch.equal(ours(linear, "LoFi"), ours(linear, "HiFi2"))
    for call in (norm, lambda x: F.scaled_dot_product_attention(x, x, x), lambda x: x @ x.transpose(-1, -2)):
        assert torch.equal(ours(call, "LoFi"), ours(call, "HiFi2"))
        assert not torch.equal(ours(call, "HiFi2"), ours(call, "HiFi4"))
