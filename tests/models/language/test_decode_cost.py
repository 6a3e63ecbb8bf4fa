"""What a step of decoding costs: bytes that cross, device memory, compilations and host work, first step to last."""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from decoders import PROMPT, VOCABULARY, build, prefill_and_decode, static_cache, tokens

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo")

LAYERS = 2
ID_BYTES = 4  # token ids and positions go up as 32-bit integers
LOGIT_BYTES = 2


@pytest.fixture
def dram(board_device: Any) -> Callable[[], int]:
    """Bytes of device memory in use, by TTNN's allocator."""
    ttnn = board_device.namespace(dry_run=True)

    def in_use() -> int:
        gc.collect()
        view = ttnn.get_memory_view(board_device.handle, ttnn.BufferType.DRAM)
        return view.num_banks * view.total_bytes_allocated_per_bank

    return in_use


def crossing(report: tt_dynamo.GraphReport, direction: str) -> list[int]:
    return sorted(transfer.bytes for transfer in report.transfers if transfer.direction == direction)


@dataclasses.dataclass
class Run:
    """A prompt and two tokens: reports; device bytes in use before, between and after; elements up for the tokens."""

    prefill: tt_dynamo.GraphReport
    decode: tt_dynamo.GraphReport
    in_use: tuple[int, int, int]
    uploaded: int


RUNS: dict[int, Run] = {}


@pytest.fixture
def run(dram: Callable[[], int], uploads: list[tuple[int, ...]]) -> Callable[[int], Run]:
    """run(batch): one compilation serves the tests of what a step costs."""

    def run(batch: int) -> Run:
        if batch not in RUNS:
            model, ids = build("llama", LAYERS), tokens(batch, PROMPT + 2)
            compiled, cache = torch.compile(model, backend="ttnn"), static_cache(model, 64)
            with tt_dynamo.record() as reports:
                before = dram()
                prefill_and_decode(compiled, ids[:, :PROMPT], PROMPT, cache)
                between = dram()
                uploads.clear()
                prefill_and_decode(compiled, ids[:, PROMPT:], 1, cache)
            uploaded = sum(torch.Size(shape).numel() for shape in uploads)
            RUNS[batch] = Run(*reports, (before, between, dram()), uploaded)
        return RUNS[batch]

    return run


@pytest.mark.parametrize("batch", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_ids_and_positions_go_up_and_logits_come_down(run: Callable[[int], Run], batch: int) -> None:
    decode = run(batch).decode
    # Each layer's cache counts its tokens in a tensor of its own, which torch may read.
    lengths = LAYERS * 2 * ID_BYTES
    assert sum(crossing(decode, "to_device")) <= batch * 2 * ID_BYTES + lengths
    assert crossing(decode, "to_host")[-1] == batch * VOCABULARY * LOGIT_BYTES
    assert sum(crossing(decode, "to_host")[:-1]) <= lengths


@pytest.mark.slow
def test_in_generate_the_mask_of_a_step_goes_up_besides(board_device: Any) -> None:
    """It is made by transformers on the host, one row a sequence."""
    model, ids = build("llama", LAYERS), tokens(4, PROMPT)
    model.compile(backend="ttnn")
    with tt_dynamo.record() as reports:
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, cache_implementation="static")
    _, decode = reports
    length = PROMPT + 7
    assert sum(crossing(decode, "to_device")) <= 4 * (2 * ID_BYTES + 2 * length) + LAYERS * 2 * ID_BYTES


@pytest.mark.slow
def test_a_cache_never_crosses(board_device: Any, uploads: list[tuple[int, ...]]) -> None:
    model, ids = build("llama", LAYERS), tokens(2, PROMPT + 8)
    compiled = torch.compile(model, backend="ttnn")
    cache = static_cache(model, 64)
    prefill_and_decode(compiled, ids[:, : PROMPT + 2], PROMPT, cache)
    uploads.clear()
    prefill_and_decode(compiled, ids[:, PROMPT + 2 :], 1, cache)
    rows = 2 * 2 * 64 * 32
    assert uploads and max(torch.Size(shape).numel() for shape in uploads) < rows


def test_prefill_and_decode_share_each_weight(run: Callable[[int], Run]) -> None:
    done = run(1)
    before, between, after = done.in_use
    assert between - before >= done.prefill.weight_bytes > 0
    # What decoding needs besides: tables of a few rows, no matrix of the model.
    assert after - between <= 0.1 * done.prefill.weight_bytes
    assert done.uploaded * 2 <= 0.1 * done.prefill.weight_bytes


@pytest.mark.slow
def test_a_cache_that_nobody_holds_is_freed(board_device: Any, dram: Any) -> None:
    model, ids = build("llama", LAYERS), tokens(2, PROMPT + 3)
    compiled = torch.compile(model, backend="ttnn")
    in_use = []
    for _ in range(4):
        prefill_and_decode(compiled, ids, PROMPT, static_cache(model, 256))
        in_use.append(dram())
    assert in_use[1:] == in_use[:1] * 3
    held = [static_cache(model, 256) for _ in range(2)]
    for cache in held:
        prefill_and_decode(compiled, ids, PROMPT, cache)
    rows = LAYERS * 2 * 2 * 2 * 256 * 32
    assert dram() - in_use[-1] >= 2 * rows, "two caches, live on the device, of at least a byte an element"
    held.clear()
    del cache
    assert dram() == in_use[-1]


def lines_of_python(call: Callable[[], Any]) -> int:
    """How many lines of Python `call` runs: work of the host that no load of the machine changes."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.slow
@torch.no_grad()
def test_256_steps_cost_the_same_each(board_device: Any, dram: Any) -> None:
    """One compilation, no memory that grows, and as much Python in the last step as in the first."""
    steps = 256
    model, ids = build("llama", LAYERS), tokens(1, PROMPT + steps + 1)
    # Emulated attention takes longer the more it reads: what the host does for a call is the same in a dry run.
    compiled = torch.compile(model, backend="ttnn", options={"dry_run": True})
    cache = static_cache(model, PROMPT + steps + 1)
    in_use, lines = [], []
    with tt_dynamo.record() as reports:
        compiled(input_ids=ids[:, :PROMPT], past_key_values=cache)
        for position in range(PROMPT, PROMPT + steps + 1):
            step = {"input_ids": ids[:, position : position + 1], "past_key_values": cache}
            if position == PROMPT:
                compiled(**step)
            else:
                lines.append(lines_of_python(lambda step=step: compiled(**step)))
            if position % 16 == 0:
                in_use.append(dram())
    assert len(reports) == 2
    assert len(set(in_use[1:])) == 1
    assert len(lines) == steps and min(lines) > 10
    assert max(lines[1:]) <= 1.02 * lines[1]
