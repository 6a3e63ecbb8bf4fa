"""Results that a trace left on the device: read there until something is replayed, and on the host from then on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from comparison import assert_close
from small_models import Feedforward, greedy_tokens

import tt_dynamo
from tt_dynamo.devices import Device
from tt_dynamo.devices.emulation.traces import EmulatedTrace
from tt_dynamo.runtime.caches import DeviceTensor

pytestmark = pytest.mark.usefixtures("clean_dynamo", "board_device")


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was captured and replayed during the test, in turn."""
    found: list[str] = []
    replay, capture = EmulatedTrace.replay, Device.trace
    monkeypatch.setattr(EmulatedTrace, "replay", lambda self: (found.append("replay"), replay(self)))
    monkeypatch.setattr(Device, "trace", lambda self, *args: (found.append("capture"), capture(self, *args))[1])
    return found


def traced(model: Any, **options: Any) -> Any:
    options = {"trace": True, "outputs": "device", "fallback": "error", **options}
    return torch.no_grad()(torch.compile(model, backend="ttnn", dynamic=False, options=options))


@torch.no_grad()
def test_results_of_many_calls_are_each_their_own(happened: list[str], downloads: Any) -> None:
    model, inputs = Feedforward(), [torch.randn(4, 32) for _ in range(6)]
    call = traced(model)
    results = [call(x) for x in inputs]
    assert happened == ["capture"] + ["replay"] * 5
    assert not downloads  # nobody waits for what comes down before the next replay
    views, written = call(inputs[0])[1:], call(inputs[1])
    written.add_(1)
    call(inputs[2])
    assert_close(views, model(inputs[0])[1:])
    assert_close(written + 0, model(inputs[1]) + 1)
    for result, x in zip(results, inputs, strict=True):
        assert type(result) is DeviceTensor
        assert_close(result.clone(), model(x))


@torch.no_grad()
def test_nothing_comes_down_of_results_that_nobody_holds(downloads: Any) -> None:
    call = traced(Feedforward())
    for _ in range(5):
        call(torch.randn(4, 32)).argmax(-1)
    assert downloads == [(4,)] * 5


@torch.no_grad()
def test_the_next_model_reads_them_where_they_lie_and_nothing_is_captured_anew(
    happened: list[str], uploads: Any, downloads: Any
) -> None:
    first, second, x = Feedforward(), torch.nn.Linear(32, 16), torch.randn(4, 32)
    calls = traced(first), traced(second)
    for scale in range(1, 4):
        assert_close(calls[1](calls[0](x * scale)).clone(), second(first(x * scale)))
    for each in (happened, uploads, downloads):
        each.clear()
    for scale in range(4, 7):
        result = calls[1](calls[0](x * scale))
    assert happened == ["replay"] * 3 and not uploads and not downloads
    assert_close(result.clone(), second(first(x * 6)))
    held = [calls[0](x * scale) for scale in range(1, 4)]
    happened.clear()
    for scale, each in enumerate(held, start=1):
        assert_close(calls[1](each).clone(), second(first(x * scale)))
    assert "capture" not in happened


@torch.no_grad()
def test_a_cache_that_is_written_in_place_is_not_the_trace_s() -> None:
    def write(cache: torch.Tensor, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        cache.index_copy_(2, position, row)
        return row * 2

    make, update = traced(torch.nn.ReLU()), traced(write)
    for value in range(1, 5):
        x, row = torch.rand(1, 2, 32, 32).bfloat16().float(), torch.full((1, 2, 1, 32), float(value))
        cache = make(x)
        for position in range(4):
            update(cache, row, torch.tensor([position]))
            make(x)
        x[:, :, :4] = value
        assert torch.equal(cache, x)


def test_streams_of_four_threads_have_each_their_results() -> None:
    model = Feedforward()
    call = traced(model)
    for _ in range(2):
        call(torch.randn(4, 32))

    def work(_: int) -> None:
        batches = [torch.randn(4, 32) for _ in range(8)]
        for batch, result in zip(batches, tt_dynamo.stream(call, batches), strict=True):
            assert_close(result.clone(), model(batch).detach())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))


@pytest.mark.slow
@torch.no_grad()
def test_a_traced_decode_step_brings_tokens_down(downloads: Any) -> None:
    pytest.importorskip("transformers")
    tokens = []
    for options in ({}, {"outputs": "device", "trace": "auto"}):
        downloads.clear()
        with tt_dynamo.record() as reports:
            tokens.append(greedy_tokens(6, options))
    assert torch.equal(*tokens)
    assert downloads == [(2, 1)] * 6
    assert [report.trace for report in reports if report.phase == "decode"] == ["captured"]
