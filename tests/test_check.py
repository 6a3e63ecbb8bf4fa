"""tt_dynamo.check: does a model fit, asked without its data, and nothing is left behind by asking."""

from __future__ import annotations

import gc
import os
from typing import Any

import pytest
import torch
from small_models import Feedforward
from torch import nn
from torch._dynamo.eval_frame import _get_total_cache_entry_count

import tt_dynamo
from tt_dynamo.capture.without_data import without_data
from tt_dynamo.compiler.fit import Memory, dram
from tt_dynamo.devices import DeviceError
from tt_dynamo.options import OptionError

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("clean_dynamo")
BOARD = os.environ.get("TT_DYNAMO_TEST_BOARD", "n150")


def memory(device: Any) -> Memory:
    gc.collect()
    return dram(device.namespace(dry_run=True), device.handle)


def llama(device: str = "meta") -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=256,
    )
    with torch.device(device):
        return transformers.LlamaForCausalLM(config).eval()


class Huge(nn.Module):
    """x [rows, size] -> the same, by way of `count` weights of `size` squared."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(count)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def huge(count: int, size: int = 16384) -> Huge:
    with torch.device("meta"):
        return Huge(count, size)


def test_a_model_without_data_has_the_report_of_one_with_data() -> None:
    ids = torch.zeros(1, 32, dtype=torch.long)
    options: dict[str, Any] = {"weight_dtype": "bfloat8_b"}
    result = tt_dynamo.check(llama(), (ids,), BOARD, **options)
    with torch.no_grad(), tt_dynamo.record() as reports:
        torch.compile(llama("cpu"), backend="ttnn", dynamic=False, options={"device": BOARD, **options})(ids)
    (checked,), (real,) = result.reports, reports
    assert result.fits and not result.reason
    assert checked.operations == real.operations and real.device_programs
    assert checked.fallbacks == real.fallbacks
    assert checked.weight_dtypes == real.weight_dtypes == result.weight_dtypes
    assert checked.peak_dram_bytes == real.peak_dram_bytes == result.needed_bytes
    assert checked.code == real.code


@pytest.mark.parametrize("tokens", [1, 32])
def test_caches_are_counted(tokens: int, board_device: Any) -> None:
    model = llama()
    cache = transformers.StaticCache(config=model.config, max_cache_len=64)
    if tokens == 1:
        cache.early_initialization(1, 2, 32, torch.float32, torch.device("cpu"))
    inputs = {"input_ids": torch.zeros(1, tokens, dtype=torch.long), "past_key_values": cache, "use_cache": True}
    tt_dynamo.check(model, inputs, BOARD)
    before = memory(board_device)  # with what TTNN itself keeps of the programs that it has built: 64 bytes a bank
    result = tt_dynamo.check(model, inputs, BOARD)
    assert result.fits
    assert result.cache_bytes == 2 * 2 * (2 * 64 * 32) * 2  # layers, keys and values, bfloat16
    assert result.needed_bytes > result.weight_bytes + result.cache_bytes
    assert dram(board_device.namespace(dry_run=True), board_device.handle) == before, "nothing is left on the device"
    assert all(not layer.is_initialized for layer in cache.layers) or tokens == 1, "the caller's cache is its own"


def test_a_convolutional_model() -> None:
    with torch.device("meta"):
        model = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 10),
        )
    result = tt_dynamo.check(model.eval(), (torch.zeros(1, 3, 32, 32),), BOARD)
    assert result.fits and not result.fallbacks
    assert "ttnn.conv2d" in {operation.target for operation in result.reports[0].operations}


def test_a_model_that_does_not_fit_is_refused_with_what_would_make_it_fit(board_device: Any) -> None:
    before = memory(board_device)
    count = before.total // (2 * 16384**2) + 1
    result = tt_dynamo.check(huge(count), (torch.zeros(32, 16384),), BOARD)
    assert not result.fits and not result.reports
    assert result.needed_bytes == count * 2 * 16384**2 > result.free_bytes == before.free
    assert 'weight_dtype="bfloat8_b"' in result.reason
    assert str(result).startswith("does not fit on ")
    assert memory(board_device) == before


def test_and_it_does_fit_so(board_device: Any) -> None:
    count = memory(board_device).total // (2 * 16384**2) + 1
    result = tt_dynamo.check(huge(count), (torch.zeros(32, 16384),), BOARD, weight_dtype="bfloat8_b")
    assert result.fits
    assert result.weight_dtypes == {"bfloat8_b": count * 17 * 16384**2 // 16}
    assert result.weight_bytes < result.needed_bytes < result.dram_bytes


def test_two_graphs_that_fit_only_one_by_one() -> None:
    class Broken(nn.Module):
        def __init__(self, first: nn.Module, second: nn.Module) -> None:
            super().__init__()
            self.first, self.second = first, second

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            torch._dynamo.graph_break()
            return self.second(x)

    count = 12_872_318_208 // (2 * 16384**2) * 2 // 3
    result = tt_dynamo.check(Broken(huge(count), huge(count)), (torch.zeros(32, 16384),), "n150")
    assert len(result.reports) == 2 and not result.fits
    assert result.reason == "its 2 graphs do not fit together"


def test_nothing_is_left_behind(board_device: Any, uploads: Any) -> None:
    model = Feedforward()
    before, entries = memory(board_device), _get_total_cache_entry_count(Feedforward.forward.__code__)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(4, 32)
    for _ in range(2):
        result = tt_dynamo.check(model, (x,), BOARD)
        assert result.fits and memory(board_device) == before
    assert not uploads
    assert _get_total_cache_entry_count(Feedforward.forward.__code__) == entries
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    with tt_dynamo.record() as reports:
        tt_dynamo.check(model, (x,), BOARD)
        assert len(reports) == 1, "an open record gets these reports as any other"


def test_the_report_reads() -> None:
    text = str(tt_dynamo.check(Feedforward(), {"x": torch.zeros(4, 32)}, BOARD, weight_dtype="bfloat8_b"))
    assert text.startswith("fits on ") and "kernel launches" in text
    assert "4.2 KiB bfloat8_b" in text and "ttnn.linear" in text and "fallbacks         none" in text


def test_fallbacks_are_listed() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j1(torch.relu(x))

    result = tt_dynamo.check(Model(), (torch.zeros(4, 4),), BOARD)
    (fallback,) = result.fallbacks
    assert result.fits and fallback.node in str(result)


def test_errors_are_those_of_the_compilation() -> None:
    with pytest.raises(OptionError, match="unknown option 'weight_dtpye'; did you mean 'weight_dtype'"):
        tt_dynamo.check(Feedforward(), (torch.zeros(4, 32),), BOARD, weight_dtpye="bfloat8_b")
    with pytest.raises(OptionError, match="unknown device 'n15O'"):
        tt_dynamo.check(Feedforward(), (torch.zeros(4, 32),), "n15O")
    other = "p150" if BOARD != "p150" else "n150"
    with pytest.raises(DeviceError, match="one cluster per process"):
        tt_dynamo.check(Feedforward(), (torch.zeros(4, 32),), other)


def test_copies_without_data_share_what_is_shared_and_leave_the_originals_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[1].weight = model[0].weight
    held = {"x": torch.ones(3), "same": None, "number": 2}
    held["same"] = held["x"]
    copied, inputs = without_data(model, held)
    assert copied[0].weight is copied[1].weight and isinstance(copied[0].weight, nn.Parameter)
    assert {tensor.device.type for tensor in (*copied.parameters(), *copied.buffers())} == {"meta"}
    assert inputs["x"] is inputs["same"] and inputs["x"].is_meta and inputs["number"] == 2
    assert model[0].weight.device.type == "cpu" and torch.equal(held["x"], torch.ones(3))
