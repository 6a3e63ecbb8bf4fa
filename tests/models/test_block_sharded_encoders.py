"""The residual stream of an encoder stays in block shards in L1: the calls of a layer, their launches and values."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from encoders import BOARD, VOCABULARY, bert, enliven, images, run, tokens, vit

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo")


def layer(report: tt_dynamo.GraphReport, name: str) -> list[tuple[str, str]]:
    """The calls of a layer that launch kernels, each with where it writes."""
    shards = dict(re.findall(r"^(memory_config\w*) = .*TensorMemoryLayout\.(\w+)", report.code, re.MULTILINE))
    memories = {**shards, "ttnn.L1_MEMORY_CONFIG": "L1"}
    found = []
    for operation in report.operations:
        if operation.programs and f"{operation.module}.".startswith(f"{name}."):
            (line,) = re.findall(rf"^    {operation.name} = (ttnn.*)$", report.code, re.MULTILINE)
            memory = re.search(r"memory_config=([\w.]+)", line)
            found.append((operation.target.rpartition(".")[2], memories.get(memory[1] if memory else "", "DRAM")))
    return found


SHARDED = "BLOCK_SHARDED"
BERT_LAYER = [
    ("linear", SHARDED),
    ("nlp_create_qkv_heads_vit", "L1"),
    ("scaled_dot_product_attention", SHARDED),
    ("linear", SHARDED),
    ("layer_norm", SHARDED),
    ("linear", SHARDED),
    ("linear", SHARDED),
    ("layer_norm", SHARDED),
]
VIT_LAYER = [
    ("layer_norm", SHARDED),
    ("linear", SHARDED),
    ("nlp_create_qkv_heads_vit", "L1"),
    ("scaled_dot_product_attention", SHARDED),
    ("linear", SHARDED),
    ("add", SHARDED),
    ("layer_norm", SHARDED),
    ("linear", SHARDED),
    ("linear", SHARDED),
    ("add", SHARDED),
]


def test_a_layer_of_bert_base_is_eight_launches_in_block_shards() -> None:
    model, inputs = bert(2), tokens(8, seq=384)
    report = run(model, inputs, dry_run=True)[1]
    assert layer(report, "encoder.layer.0") == layer(report, "encoder.layer.1") == BERT_LAYER
    assert "to_memory_config" not in report.code
    before = run(model, inputs, dry_run=True, optimize="off")[1]
    assert SHARDED not in before.code
    assert report.device_programs == before.device_programs
    assert report.peak_dram_bytes < before.peak_dram_bytes


def test_a_layer_of_vit_base_is_ten_launches_in_block_shards() -> None:
    model = vit(3)
    report = run(model, images(8), dry_run=True)[1]
    assert layer(report, "vit.layers.1") == VIT_LAYER
    assert "to_memory_config" not in report.code
    before = run(model, images(8), dry_run=True, optimize="off")[1]
    assert report.device_programs == before.device_programs


def narrow(layers: int) -> torch.nn.Module:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 512}
    return BertModel(BertConfig(num_hidden_layers=layers, vocab_size=VOCABULARY, **sizes))


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        pytest.param(narrow, lambda: tokens(7, seq=100), id="rows that fill no tiles, and cores unevenly"),
        pytest.param(bert, lambda: tokens(2, seq=256), id="bert"),
        pytest.param(bert, lambda: tokens(1, seq=384), id="bert, batch 1", marks=pytest.mark.slow),
        pytest.param(vit, lambda: images(2), id="vit, 197 rows"),
    ],
)
def test_values_are_those_of_interleaved_tensors(model: Any, inputs: Any) -> None:
    """Shards change where elements lie, not what they are: the same products in the same precision."""
    encoder = enliven(model(2))
    ours, report = run(encoder, inputs())
    assert SHARDED in report.code or BOARD != "n150", "N150 has cores enough for each of them"
    plain, _ = run(encoder, inputs(), optimize="off")
    for one, other in zip(ours, plain, strict=True):
        assert one.isfinite().all() and torch.equal(one, other)


@pytest.mark.skipif(BOARD != "n150", reason="the sizes are those that N150's L1 has no room for")
@pytest.mark.parametrize(
    ("batch", "seq", "where"),
    [
        pytest.param(8, 512, ["L1", SHARDED, "DRAM", SHARDED], id="the feedforward"),
        pytest.param(16, 384, ["DRAM"] * 4, id="the stream"),
    ],
)
def test_what_finds_no_room_lies_in_dram_at_no_more_launches(batch: int, seq: int, where: list[str]) -> None:
    model, inputs = bert(2), tokens(batch, seq)
    report = run(model, inputs, dry_run=True)[1]
    assert [memory for call, memory in layer(report, "encoder.layer.1") if call == "linear"] == where
    assert "to_memory_config" not in report.code
    assert report.device_programs == run(model, inputs, dry_run=True, optimize="off")[1].device_programs
