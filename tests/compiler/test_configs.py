"""The option `configs`: calls are made as it says where TTNN takes that, and a report's mapping changes nothing."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
import torch
from comparison import assert_same
from encoders import bert, tokens
from fresh_process import BOARD
from small_models import Attention, Feedforward
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

import tt_dynamo
from tt_dynamo.compiler import trace
from tt_dynamo.devices import BOARDS
from tt_dynamo.ir.errors import Refused
from tt_dynamo.lowering import registry
from tt_dynamo.options import OptionError

pytestmark = pytest.mark.usefixtures("clean_dynamo")

SDPA = "ttnn.transformer.scaled_dot_product_attention"
IDS, KEEP = torch.arange(64).view(2, 32) % 10, torch.ones(2, 32, dtype=torch.bool)
X = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))


def compiled(model: nn.Module, *inputs: torch.Tensor, configs: Any = None, **options: Any) -> Any:
    """The report of the model's one graph, whose values are eager's."""
    torch._dynamo.reset()
    options = {"device": BOARD, **options} | ({} if configs is None else {"configs": configs})
    with tt_dynamo.record() as reports, torch.no_grad():
        assert_same(torch.compile(model.eval(), backend="ttnn", options=options)(*inputs), model(*inputs))
    (report,) = reports
    assert not report.fallbacks
    return report


def configs_of(report: Any, target: str) -> list[dict[str, Any]]:
    return [operation.config for operation in report.operations if operation.target == target]


def test_a_pattern_changes_the_calls_of_its_modules_and_operations_alone() -> None:
    report = compiled(Feedforward(), X, configs={"up": {"fidelity": "LoFi"}, "ttnn.layer_norm": {"memory": "L1"}})
    assert [config["fidelity"] == "LoFi" for config in configs_of(report, "ttnn.linear")] == [True, False]
    assert "math_fidelity=ttnn.MathFidelity.LoFi" in report.code and not report.notes
    (norm,) = [line for line in report.code.splitlines() if "= ttnn.layer_norm(" in line]
    assert "memory_config=ttnn.L1_MEMORY_CONFIG" in norm and report.code.count("L1_MEMORY_CONFIG") == 1


def test_a_report_s_own_mapping_gives_the_same_program() -> None:
    torch.manual_seed(0)
    model = Attention()
    wanted = {"qkv": {"fidelity": "HiFi2", "memory": "L1"}, SDPA: {"k_chunk_size": 64}, "out": {"grid": [4, 2]}}
    for configs in (None, wanted):
        first = compiled(model, IDS, KEEP, configs=configs)
        mapping = json.loads(json.dumps(first.configs()))
        again = compiled(model, IDS, KEEP, configs=mapping)
        assert again.code == first.code and again.configs() == mapping and again.notes == first.notes == []
    assert configs_of(again, SDPA)[0]["k_chunk_size"] == 64
    assert {"fidelity": "HiFi2", "memory": "L1"}.items() <= configs_of(again, "ttnn.linear")[0].items()
    assert mapping[f"out:ttnn.linear@forward@{BOARD}"]["grid"] == [4, 2]


@pytest.mark.parametrize(
    "key", ["ttnn.linear@decode", f"up@{next(board for board in BOARDS if board != BOARD)}", "up@prefill"]
)
def test_a_key_of_another_phase_or_board_changes_nothing(key: str) -> None:
    plain, report = compiled(Feedforward(), X), compiled(Feedforward(), X, configs={key: {"fidelity": "LoFi"}})
    assert report.code == plain.code and not report.notes


def test_of_each_field_the_first_key_that_fits_counts() -> None:
    configs = {"up": {"fidelity": "LoFi"}, "*": {"fidelity": "HiFi2", "fp32_accumulation": False}}
    report = compiled(Feedforward(), X, configs=configs)
    first, second = configs_of(report, "ttnn.linear")
    assert (first["fidelity"], first["fp32_accumulation"]) == ("LoFi", False)
    assert (second["fidelity"], second["fp32_accumulation"]) == ("HiFi2", False)


def test_a_product_is_computed_in_blocks_as_wide_as_asked() -> None:
    report = compiled(Feedforward(), X, configs={"down": {"in0_block_w": 2, "grid": [1, 2]}})
    first, second = configs_of(report, "ttnn.linear")
    assert "in0_block_w" not in first and (second["in0_block_w"], second["grid"]) == (2, [1, 2]) and not report.notes
    (program,) = [line for line in report.code.splitlines() if "MatmulMultiCoreReuseMultiCastProgramConfig(" in line]
    assert "in0_block_w=2" in program and "per_core_M=1, per_core_N=1" in program
    assert compiled(Feedforward(), X, configs=report.configs()).code == report.code


def test_a_product_for_which_a_program_was_chosen_takes_the_blocks_and_cores_that_are_asked_for() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(1024, 1024), torch.randn(512, 1024)
    chosen = compiled(model, x)
    assert "in0_block_w=" in chosen.code and "in0_block_w=2," not in chosen.code
    report = compiled(model, x, configs={"*": {"in0_block_w": 2, "grid": [4, 4]}})
    (config,) = configs_of(report, "ttnn.linear")
    assert (config["in0_block_w"], config["grid"]) == (2, [4, 4]) and not report.notes
    assert "in0_block_w=2," in report.code and "CoreCoord(4, 4)" in report.code
    assert compiled(model, x, configs=report.configs()).code == report.code
    refused = compiled(model, x, configs={"*": {"in0_block_w": 3}})
    assert refused.code == chosen.code and "in0_block_w 3 on 8 x 8 cores left out" in refused.notes[0]


def test_a_product_of_block_shards_takes_the_blocks_that_are_asked_for_and_notes_a_grid() -> None:
    model, inputs = bert(1), tokens(8, seq=64)

    def run(configs: Any) -> Any:
        torch._dynamo.reset()
        options = {"device": BOARD, "dry_run": True, "configs": configs}
        with tt_dynamo.record() as (reports), torch.no_grad():
            torch.compile(model.eval(), backend="ttnn", options=options)(**inputs)
        return reports[0]

    plain = run({})
    assert "BLOCK_SHARDED" in plain.code and not plain.notes
    report = run({"*.intermediate.dense": {"in0_block_w": 1}, "*.layer.0.output.dense": {"grid": [2, 2]}})
    configs = [each.config for each in report.operations if "in0_block_w" in each.config]
    assert [config["in0_block_w"] for config in configs] == [1]
    (note,) = report.notes
    assert note.startswith("configs: grid [2, 2] left out for ttnn.linear") and "its shards lie on" in note
    assert run(json.loads(json.dumps(report.configs()))).code == report.code


def test_a_linear_layer_in_lofi_has_the_fidelity_and_the_accumulation_of_its_config() -> None:
    wanted = {"fidelity": "HiFi2", "fp32_accumulation": True}
    report = compiled(Feedforward(), X, configs={"up": wanted}, math_fidelity="LoFi", fp32_accumulation=False)
    first, second = configs_of(report, "ttnn.linear")
    assert wanted.items() <= first.items() and (second["fidelity"], second["fp32_accumulation"]) == ("LoFi", False)
    again = compiled(Feedforward(), X, configs=report.configs(), math_fidelity="LoFi", fp32_accumulation=False)
    assert again.code == report.code and not report.notes


def test_a_product_that_accumulates_in_float32_by_its_config_has_subblocks_that_its_registers_hold() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(1024, 1024), torch.randn(512, 1024)
    wanted = {"fp32_accumulation": True, "fidelity": "HiFi2"}
    report = compiled(model, x, configs={"*": wanted}, fp32_accumulation=False)
    assert "in0_block_w=" in report.code and not report.notes
    assert configs_of(report, "ttnn.linear")[0]["fp32_accumulation"] is True


def test_weights_have_the_dtype_that_a_config_says_before_that_of_the_option() -> None:
    configs = {"ttnn.linear": {"weight_dtype": "bfloat8_b"}, "nothing.here": {"weight_dtype": "bfloat4_b"}}
    report = compiled(
        Feedforward(), X, configs={"up": {"weight_dtype": "bfloat4_b"}, **configs}, weight_dtype="bfloat16"
    )
    assert [config["weight_dtype"] for config in configs_of(report, "ttnn.linear")] == ["bfloat4_b", "bfloat8_b"]
    assert report.notes == ["configs: 'nothing.here' fits no call of this graph; the nearest is 'ttnn.linear'"]


REFUSED = {
    "blocks that do not divide": (
        {"down": {"in0_block_w": 3}},
        "in0_block_w 3 on .* left out for ttnn.linear.*: .*in0",
    ),
    "a grid larger than the board": (
        {"up": {"grid": [20, 20]}},
        r"grid \[20, 20\] left out for ttnn.linear.* has \d+ col",
    ),
    "no such argument": (
        {"ttnn.embedding": {"grid": [1, 1]}, SDPA: {"k_chunk_size": 1 << 20}},
        "k_chunk_size 1048576 left",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_ttnn_refuses_is_left_out_with_a_note_or_raises_where_it_is_strict(what: str) -> None:
    configs, message = REFUSED[what]
    torch.manual_seed(0)
    model = Attention()
    plain, report = compiled(model, IDS, KEEP), compiled(model, IDS, KEEP, configs=configs)
    assert report.code == plain.code and len(report.notes) == 1
    assert re.search(message, report.notes[0]), report.notes
    strict = {key: {**config, "strict": True} for key, config in configs.items()}
    with pytest.raises(BackendCompilerFailed, match="configs: .*change it, or leave out 'strict'") as raised:
        compiled(model, IDS, KEEP, configs=strict)
    assert isinstance(raised.value.inner_exception, OptionError)


def test_hifi4_in_float32_is_left_out_on_wormhole_where_it_is_wrong(board_device: Any) -> None:
    report = compiled(Feedforward(), X, configs={"up": {"fidelity": "HiFi4", "fp32_accumulation": True}})
    wrong = board_device.architecture.hifi4_is_wrong_in_float32
    assert configs_of(report, "ttnn.linear")[0]["fidelity"] == ("HiFi3" if wrong else "HiFi4")
    assert [("38306" in note, "HiFi3" in note) for note in report.notes] == [(True, True)] * wrong


class Beside(nn.Module):
    """x, y [rows, 32] -> the same; the norm of x waits for the hyperbolic tangent of y."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.norm(x) + torch.tanh(y)


def test_a_value_in_l1_leaves_it_for_a_later_call_that_finds_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_lowering(target: Any) -> Any:
        found = registry.find(target)

        def with_empty_l1(ttnn: Any, *args: Any, **kwargs: Any) -> Any:
            if ttnn.get_memory_view(ttnn.settings.device, ttnn.BufferType.L1).total_bytes_allocated_per_bank:
                raise Refused("Statically allocated circular buffers clash with L1 buffers")
            return found.function(ttnn, *args, **kwargs)

        return dataclasses.replace(found, function=with_empty_l1) if "tanh" in str(target) else found

    monkeypatch.setattr(trace, "find_lowering", find_lowering)
    report = compiled(Beside(), X, X, configs={"norm": {"memory": "L1"}})
    calls = [operation.target for operation in report.operations if "torch" not in operation.target]
    assert calls == ["ttnn.layer_norm", "ttnn.to_memory_config", "ttnn.tanh", "ttnn.add"]
    assert report.operations[-2].config["memory"] == "DRAM" and not report.notes


def test_the_table_has_the_estimate_without_the_config_beside_it() -> None:
    report = compiled(Feedforward(), X, configs={"up": {"fidelity": "LoFi"}})
    first, second = [operation for operation in report.operations if operation.target == "ttnn.linear"]
    assert first.plain_seconds > first.estimated_seconds and second.plain_seconds is None
    head, *rows = str(report.configs()).splitlines()
    assert head.split("  ")[0] == "estimate µs" and any("fidelity LoFi" in row for row in rows)
