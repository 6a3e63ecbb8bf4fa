"""A decode step lies in width shards, its weights over the DRAM banks, where prefill reads them as well."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from comparison import pcc
from decoders import prefill_and_decode, static_cache, tokens
from torch import nn

import tt_dynamo
from tt_dynamo.compiler import compile as compiling
from tt_dynamo.compiler.trace import Trace
from tt_dynamo.estimate.chip import chip_of
from tt_dynamo.estimate.published_models import decoder_seconds
from tt_dynamo.ir.errors import Refused
from tt_dynamo.lowering import workarounds

pytestmark = pytest.mark.usefixtures("clean_dynamo")

PROMPT = 40
IN_BANKS = "MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig"


def llama(width: int, inner: int, layers: int, **options: Any) -> Any:
    """A Llama of random weights, wide enough that it pays to shard them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    heads = {"head_dim": 128, "num_attention_heads": width // 128, "num_key_value_heads": width // 512}
    settings = {"vocab_size": 320, "max_position_embeddings": 256, "tie_word_embeddings": False, "eos_token_id": None}
    return LlamaForCausalLM(LlamaConfig(**sizes, **heads, **settings, **options)).eval()


def step(board: str, batch: int = 1, layers: int = 2, length: int = 256) -> tt_dynamo.GraphReport:
    """The report of a decode step, of layers as wide as Llama-3.1-8B's and a cache of so many rows."""
    from transformers import StaticCache

    with torch.device("meta"):
        model = llama(4096, 14336, layers)
    cache = StaticCache(config=model.config, max_cache_len=length)
    cache.early_initialization(batch, 8, 128, model.dtype, torch.device("meta"))
    inputs = {"input_ids": torch.zeros(batch, 1, dtype=torch.int64), "past_key_values": cache, "use_cache": True}
    return tt_dynamo.check(model, inputs, board, preset="performance").reports[-1]


@pytest.mark.parametrize("batch", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_layer_is_spread_over_cores_from_norm_to_sum(board_device: Any, batch: int) -> None:
    board = board_device.board
    report = step(board, batch)
    assert not report.fallbacks
    layer = [call for call in report.operations if call.programs and "layers.1." in f".{call.module}."]
    assert sum(call.programs for call in layer) == 16
    names = [call.target.rpartition(".")[2] for call in layer]
    assert names == [
        *("rms_norm", "linear", "nlp_create_qkv_heads_decode"),
        *("rotary_embedding_hf", "paged_fused_update_cache", "rotary_embedding_hf"),
        *("scaled_dot_product_attention_decode", "reshape", "linear", "add"),
        *("rms_norm", "linear", "linear", "multiply", "linear", "add"),
    ]
    chosen = [each.candidate for each in report.choices if each.operation == "linear" and "layers.1." in each.module]
    assert "typecast" not in report.code and report.code.count("dtype=ttnn.bfloat8_b") >= 2
    assert sum("num_workers_per_dram_bank" in candidate for candidate in chosen) >= 3, chosen
    assert (f"num_workers_per_dram_bank={2 if board == 'p150' else 1}" in chosen[0]) and IN_BANKS in report.code


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 32])
def test_a_layer_is_estimated_to_take_less_than_the_experts(board_device: Any, batch: int) -> None:
    """As `benchmarks/layers.py` prints it of a cache of 1,024 rows: what three layers take longer than two."""
    board, most = board_device.board, {"n150": 0.97, "p150": 0.7}
    sizes = {"hidden": 4096, "mlp": 14336, "heads": 32, "kv_heads": 8, "head_dim": 128, "vocabulary": 128256}
    steps = [step(board, batch, layers, 1024) for layers in (2, 3)]
    ours = [report.estimated_seconds - report.transfer_seconds for report in steps]
    experts = [decoder_seconds(chip_of(board), batch=batch, context=1024, layers=layers, **sizes) for layers in (2, 3)]
    assert ours[1] - ours[0] <= most[board] * (experts[1] - experts[0])


@pytest.mark.parametrize(("columns", "pays"), [(32, False), (1024, True)])
def test_a_weight_of_one_column_of_tiles_lies_in_no_bank(board_device: Any, columns: int, pays: bool) -> None:
    model = nn.Linear(1024, columns, bias=False).eval()
    options = {"device": board_device.choice, "dry_run": True}
    with mock.patch.object(compiling, "phase_of", lambda graph: "decode"), tt_dynamo.record() as reports:
        torch.compile(model, backend="ttnn", options=options)(torch.randn(1, 1024))
    assert (IN_BANKS in reports[0].code) == pays


def test_prefill_and_decode_share_weights_over_the_banks_and_give_eager_s_values(
    board_device: Any, uploads: list[tuple[int, ...]]
) -> None:
    model, ids = llama(1024, 4096, 1), tokens(2, PROMPT + 4)
    compiled, cache = torch.compile(model, backend="ttnn"), static_cache(model, 64)
    with tt_dynamo.record() as reports:
        ours = prefill_and_decode(compiled, ids[:, :PROMPT], PROMPT, cache)
        uploads.clear()
        ours += prefill_and_decode(compiled, ids[:, PROMPT:], 1, cache)
    prefill, decode = reports
    assert [report.fallbacks for report in reports] == [[], []]
    assert IN_BANKS in decode.code and IN_BANKS not in prefill.code
    assert max(torch.Size(shape).numel() for shape in uploads) < 1024 * 1024, "no matrix went up a second time"
    theirs = prefill_and_decode(model, ids, PROMPT, static_cache(model, 64))
    assert min(pcc(a, b) for a, b in zip(ours, theirs, strict=True)) > 0.999


@pytest.mark.slow
def test_heads_of_many_users_are_merged_on_their_cores(board_device: Any) -> None:
    model, ids = llama(1024, 2048, 1), tokens(32, 4)
    compiled = torch.compile(model, backend="ttnn")
    with tt_dynamo.record() as reports:
        ours = prefill_and_decode(compiled, ids, 2, static_cache(model, 64))
    assert [report.fallbacks for report in reports] == [[], []]
    assert "nlp_concat_heads_decode" in reports[1].code
    theirs = prefill_and_decode(model, ids, 2, static_cache(model, 64))
    assert min(pcc(a, b) for a, b in zip(ours, theirs, strict=True)) > 0.999


def both(model: Any, ids: torch.Tensor, options: dict[str, Any] | None = None) -> tuple[Any, Any, list[torch.Tensor]]:
    """The reports of prefill and decode, and what they give."""
    compiled = torch.compile(model, backend="ttnn", options=options)
    with tt_dynamo.record() as reports:
        results = prefill_and_decode(compiled, ids, PROMPT, static_cache(model, 64))
    prefill, decode = reports
    assert not prefill.fallbacks and not decode.fallbacks
    return prefill, decode, results


@pytest.mark.usefixtures("board_device")
def test_weights_that_prefill_cannot_read_over_the_banks_lie_twice_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(columns: int, banks: int) -> int:
        raise Refused(f"{columns} columns of cores and {banks} banks")

    monkeypatch.setattr(workarounds, "columns_of_cores", refuse)
    model, ids = llama(1024, 4096, 1), tokens(1, PROMPT + 2)
    prefill, decode, ours = both(model, ids)
    assert IN_BANKS in decode.code and not any("twice" in note for note in prefill.notes)
    assert any("of weights lie on the device twice" in note for note in decode.notes)
    theirs = prefill_and_decode(model, ids, PROMPT, static_cache(model, 64))
    assert min(pcc(a, b) for a, b in zip(ours, theirs, strict=True)) > 0.999


@pytest.mark.slow
@pytest.mark.usefixtures("board_device")
def test_where_there_is_no_room_for_weights_over_the_banks_they_lie_interleaved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Trace.run

    def run_or_fail(trace: Trace) -> Trace:
        if any("banks=12" in str(use.spec) or "banks=8" in str(use.spec) for use in run(trace).weights):
            raise MemoryError("Out of Memory")
        return trace

    monkeypatch.setattr(Trace, "run", run_or_fail)
    prefill, decode, _ = both(llama(1024, 4096, 1), tokens(1, PROMPT + 2))
    assert IN_BANKS not in decode.code and not decode.notes and not prefill.notes


@pytest.mark.slow
def test_a_weight_over_the_banks_comes_back_from_its_file(board_device: Any, tmp_path: Path) -> None:
    model, ids = llama(1024, 4096, 1), tokens(1, PROMPT + 2)
    results, counts = [], []
    for _ in range(2):
        torch._dynamo.reset()
        gc.collect()
        prefill, decode, result = both(model, ids, {"weight_dtype": "bfloat8_b", "weight_cache": tmp_path})
        results.append(result)
        assert IN_BANKS in decode.code and not prefill.notes and not decode.notes
        counts.append([(report.weights_read, report.weights_written) for report in (prefill, decode)])
    assert counts[0][0][1] >= 5 and counts[1][0][0] == counts[0][0][1] and counts[1][0][1] == 0
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
