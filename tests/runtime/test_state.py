"""Nothing leaks and nothing mixes: device memory comes back, calls keep it flat, one copy of a weight serves all."""

from __future__ import annotations

import copy
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from comparison import assert_same
from small_models import Attention, Feedforward

import tt_dynamo

pytestmark = pytest.mark.usefixtures("clean_dynamo")


class DramMeter:
    """Bytes allocated in the device's DRAM, as TTNN's allocator says."""

    def __init__(self, device: Any) -> None:
        self._ttnn, self._handle = device.namespace(dry_run=True), device.handle

    def __call__(self) -> int:
        gc.collect()
        view = self._ttnn.get_memory_view(self._handle, self._ttnn.BufferType.DRAM)
        return view.num_banks * view.total_bytes_allocated_per_bank


@pytest.fixture
def dram(board_device: Any) -> Iterator[DramMeter]:
    meter = DramMeter(board_device)
    with torch.no_grad():
        yield meter


def forget() -> None:
    torch._dynamo.reset()
    gc.collect()


def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 10, (2, 8)), torch.ones(2, 8, dtype=torch.bool)


def test_memory_comes_back_after_a_reset(dram: DramMeter) -> None:
    forget()
    before, held = dram(), []  # other tests' fixtures may hold some
    for _ in range(3):
        compiled = torch.compile(Attention(), backend="ttnn")
        compiled(*tokens())
        while_compiled = dram()
        del compiled
        forget()
        held.append(dram())
        assert held[-1] < while_compiled
    # TTNN's program cache keeps a table of 1536 bytes for a mean, once per program.
    assert held[0] == held[1] == held[2] < before + 10_000


def test_memory_comes_back_after_training(dram: DramMeter) -> None:
    before = dram()
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn")
    with torch.enable_grad():
        for _ in range(3):
            compiled(torch.randn(4, 32)).sum().backward()
    del compiled
    forget()
    assert dram() == before


def test_memory_comes_back_after_a_compilation_that_failed(dram: DramMeter) -> None:
    before = dram()
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed):
        options = {"fallback": "error"}
        failing = torch.compile(lambda x: torch.special.bessel_j1(torch.relu(x)), backend="ttnn", options=options)
        failing(torch.randn(64, 64))
    forget()
    assert dram() == before


@pytest.mark.parametrize("dry_run", [False, True])
def test_two_hundred_calls_keep_memory_flat(dram: DramMeter, dry_run: bool) -> None:
    compiled = torch.compile(Feedforward(), backend="ttnn", options={"dry_run": dry_run})
    x = torch.randn(4, 32)
    compiled(x)
    after_one = dram()
    for _ in range(200):
        compiled(x)
    assert dram() == after_one


def resident_bytes() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("calls", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_calls_in_a_loop_keep_device_and_host_memory_flat(dram: DramMeter, calls: int) -> None:
    compiled = torch.compile(Attention(), backend="ttnn")
    inputs = tokens()
    for _ in range(20):  # allocators of torch and Python have what they need from then on
        compiled(*inputs)
    device, host = dram(), resident_bytes()
    for _ in range(calls):
        compiled(*inputs)
    assert dram() == device
    assert resident_bytes() - host < 10_000_000


def test_without_deallocations_memory_is_flat_as_well(dram: DramMeter) -> None:
    compiled = torch.compile(Attention(), backend="ttnn", options={"disable_passes": ["insert_deallocations"]})
    inputs = tokens()
    compiled(*inputs)
    after_one = dram()
    for _ in range(20):
        compiled(*inputs)
    assert dram() == after_one


def test_two_graphs_of_one_model_hold_one_copy_of_its_weights(dram: DramMeter) -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn", dynamic=False)
    before = dram()
    compiled(torch.randn(4, 32))
    once = dram() - before
    assert once > 0
    compiled(torch.randn(40, 32))
    torch.compile(model, backend="ttnn")(torch.randn(4, 32))
    assert dram() - before == once


def test_a_changed_weight_leaves_one_copy_once_every_graph_ran(dram: DramMeter) -> None:
    model = Feedforward()
    compiled = torch.compile(model, backend="ttnn", dynamic=False)
    inputs = [torch.randn(rows, 32) for rows in (4, 40)]
    before = dram()
    for x in inputs:
        compiled(x)
    once = dram() - before
    for parameter in model.parameters():
        parameter.mul_(1.5)
    for x in inputs:
        assert_same(compiled(x), model(x))
    assert dram() - before == once


def test_a_deep_copy_holds_a_copy_of_its_own(dram: DramMeter) -> None:
    model = Feedforward()
    before = dram()
    compiled = torch.compile(model, backend="ttnn")
    compiled(torch.randn(4, 32))
    once = dram() - before
    other = torch.compile(copy.deepcopy(model), backend="ttnn")
    other(torch.randn(4, 32))
    assert dram() - before == 2 * once


def test_models_of_equal_shapes_never_mix(dram: DramMeter) -> None:
    models = [Feedforward() for _ in range(3)]
    compiled = [torch.compile(model, backend="ttnn") for model in models]
    x = torch.randn(4, 32)
    for _ in range(2):
        for model, call in zip(models, compiled, strict=True):
            assert_same(call(x), model(x))
    models[1].load_state_dict(models[0].state_dict())
    for model, call in zip(models, compiled, strict=True):
        assert_same(call(x), model(x))


def test_weights_at_a_reused_address_are_not_taken_for_those_that_were_there() -> None:
    """Memory of a model that is gone is given to the next one, with the same shapes and version counters."""
    x = torch.randn(4, 32)
    for _ in range(6):
        model = Feedforward()
        with torch.no_grad():
            assert_same(torch.compile(model, backend="ttnn")(x), model(x))
        del model
        gc.collect()


def test_one_instance_of_many_with_the_same_code(dram: DramMeter) -> None:
    """Dynamo shares the code of a class's instances, and may share a compiled graph between them."""

    class Stack(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList(Feedforward() for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x)
            return x

    stack = Stack()
    eager = copy.deepcopy(stack)
    for block in stack.blocks:
        block.compile(backend="ttnn")
    x = torch.randn(4, 32)
    for _ in range(2):
        assert_same(stack(x), eager(x))


def test_values_and_dry_runs_of_one_model_do_not_mix(dram: DramMeter, warnings_logged: Any) -> None:
    model = Feedforward()
    x = torch.randn(4, 32)
    dry = torch.compile(model, backend="ttnn", options={"dry_run": True})
    wet = torch.compile(model, backend="ttnn")
    for _ in range(2):
        ours = dry(x)
        assert ours.shape == (4, 32) and ours.dtype == torch.float32
        assert_same(wet(x), model(x))
    assert not warnings_logged()


def test_reports_of_another_thread_stay_there(dram: DramMeter) -> None:
    seen: list[int] = []

    def compile_one() -> None:
        with torch.no_grad(), tt_dynamo.record() as reports:
            torch.compile(lambda x: torch.relu(x) * 3, backend="ttnn")(torch.randn(4, 4))
        seen.append(len(reports))

    with tt_dynamo.record() as mine:
        thread = threading.Thread(target=compile_one)
        thread.start()
        thread.join()
        assert seen == [1] and mine == []


def test_gradients_between_two_calls_are_of_their_own_call(dram: DramMeter) -> None:
    model = Feedforward()
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="ttnn")
    inputs = [torch.randn(4, 32), torch.randn(4, 32)]
    with torch.enable_grad():
        ours = [compiled(x) for x in inputs]
        theirs = [eager(x) for x in inputs]
        for y, z in reversed(list(zip(ours, theirs, strict=True))):
            y.square().sum().mul(torch.tensor(0.5)).backward()
            z.square().sum().mul(torch.tensor(0.5)).backward()
    norm, eager_norm = model.norm.weight.grad, eager.norm.weight.grad
    assert_same(norm, eager_norm)
