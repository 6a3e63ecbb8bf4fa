"""The residual stream of an encoder in bfloat8_b: what are block floats there, what that costs, and who reads them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comparison import pcc
from encoders import bert, enliven, images, outputs_of, run, tokens, vit

import tt_dynamo
import tt_dynamo.lowering.matmul
from tt_dynamo.ir.errors import Refused

pytestmark = pytest.mark.usefixtures("clean_dynamo")
NARROW = "bfloat8_b"


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        pytest.param(bert, lambda: tokens(2, seq=128), id="bert"),
        pytest.param(vit, lambda: images(1), id="vit", marks=pytest.mark.slow),
    ],
)
def test_streams_of_block_floats_keep_the_values_of_eager_torch_in_its_dtypes(model: Any, inputs: Any) -> None:
    encoder, given = enliven(model(2)), inputs()
    ours, report = run(encoder, given, activation_dtype=NARROW)
    wide, plain = run(encoder, given)
    with torch.no_grad():
        expected = outputs_of(encoder(**given))
    assert f"ttnn.{NARROW}" in report.code and NARROW not in plain.code
    for one, other, eager in zip(ours, wide, expected, strict=True):
        assert one.dtype == eager.dtype and one.isfinite().all()
        assert 0.998 < pcc(one, eager) < pcc(other, eager)
    # Where the stream begins and ends, it is cast.
    assert report.device_programs <= plain.device_programs + 2


@pytest.mark.slow
def test_no_layer_of_bert_base_has_more_launches_in_block_floats() -> None:
    model, inputs = bert(2), tokens(8, seq=384)
    report = run(model, inputs, dry_run=True, activation_dtype=NARROW)[1]
    calls = [o.target for o in report.operations if o.programs and f".{o.module}.".find(".layer.1.") >= 0]
    assert len(calls) == 8
    assert report.code.count(f"ttnn.{NARROW}") == 1  # where the stream begins; the rest follows
    plain = run(model, inputs, dry_run=True)[1]
    assert report.estimated_seconds < plain.estimated_seconds


def test_streams_to_which_ttnn_refuses_block_floats_stay_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    real = tt_dynamo.lowering.matmul.assigned_dtype

    def refusing(ttnn: Any, x: Any) -> Any:
        if ttnn.dtype == NARROW:
            raise Refused("ttnn.linear: no block floats here")
        return real(ttnn, x)

    encoder, given = enliven(bert(1)), tokens(2, seq=128)
    wide, _ = run(encoder, given)
    monkeypatch.setattr(tt_dynamo.lowering.matmul, "assigned_dtype", refusing)
    ours, report = run(encoder, given, activation_dtype=NARROW)
    assert any("activations around it are bfloat16, TTNN refused" in note for note in report.notes)
    assert NARROW not in report.code
    assert all(torch.equal(one, other) for one, other in zip(ours, wide, strict=True))


def test_prompts_that_fill_caches_keep_bfloat16() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=2, n_embd=256, n_head=4, vocab_size=128)
    inputs = {"input_ids": torch.arange(64)[None], "use_cache": True}
    assert f"ttnn.{NARROW}" not in run(GPT2LMHeadModel(config), inputs, dry_run=True, activation_dtype=NARROW)[1].code
