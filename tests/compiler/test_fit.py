"""A model that is larger than the device is refused before anything goes up, and the error says what would fit."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from comparison import assert_same
from fresh_process import BOARD
from small_models import Feedforward
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

import tt_dynamo
from tt_dynamo.compiler.fit import DoesNotFit, Memory, dram, dram_or_error
from tt_dynamo.ir.spec import Spec
from tt_dynamo.runtime.weights import WeightStore

pytestmark = pytest.mark.usefixtures("clean_dynamo")


class Products(nn.Module):
    """x [rows, size] -> the same, by `count` weights of `size` squared that take no memory on the host."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(1).expand(size, size)) for _ in range(count)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for weight in self.weights:
            x = x @ weight
        return x


class Widened(nn.Module):
    """x [1, columns] -> [columns], by way of a value that is larger than any device."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.expand(1 << 20, -1) + 1).sum(0)


def memory(device: Any) -> Memory:
    gc.collect()
    return dram(device.namespace(dry_run=True), device.handle)


def refused(model: nn.Module, *inputs: torch.Tensor, **options: Any) -> DoesNotFit:
    with torch.no_grad(), pytest.raises(BackendCompilerFailed) as raised:
        torch.compile(model, backend="ttnn", options={"device": BOARD, **options})(*inputs)
    error = raised.value.inner_exception
    assert isinstance(error, DoesNotFit) and isinstance(error, MemoryError)
    return error


def test_weights_that_do_not_fit_are_one_error_before_any_of_them_goes_up(board_device: Any, uploads: Any) -> None:
    before = memory(board_device)
    size = 16384
    count = before.total // (2 * size * size) + 1
    error = refused(Products(count, size), torch.zeros(32, size))
    assert error.needed == 2 * count * size * size and error.free == before.free < error.needed
    message = str(error)
    assert 'weight_dtype="bfloat8_b"' in message and "TTNN: Out of Memory" in message and "p150" in message
    assert not uploads
    assert memory(board_device) == before, "an error that is still held holds nothing on the device"


def test_activations_that_do_not_fit_are_the_same_error(board_device: Any) -> None:
    error = refused(Widened(), torch.zeros(1, 1 << 16))
    assert "smaller batch" in str(error) and "weight_dtype" not in str(error)


def test_the_second_graph_of_a_model_needs_no_more_memory_for_its_weights(board_device: Any) -> None:
    size, count = 2048, 4
    weights = 2 * size * size * count
    ttnn = board_device.namespace(dry_run=True)
    held = {"dtype": ttnn.bfloat16, "layout": ttnn.TILE_LAYOUT, "device": board_device.handle}
    pieces = (memory(board_device).free - weights * 3 // 2) // (64 * size * size)
    fillers = [ttnn.empty((32, size, size), **held) for _ in range(pieces)]  # what else lies there may lie between them
    rest = memory(board_device).free - weights * 3 // 2
    fillers += [ttnn.empty((size, size), **held) for _ in range(rest // (2 * size * size))]
    assert weights < memory(board_device).free < 2 * weights
    model = Products(count, size)
    compiled = torch.compile(model, backend="ttnn", dynamic=False, options={"device": BOARD})
    with torch.no_grad(), tt_dynamo.record() as reports:
        for batch in (1, 2):
            assert_same(compiled(torch.ones(batch, size)), torch.zeros(batch, size))
    assert [report.fallbacks for report in reports] == [[], []]
    error = refused(Products(count + 1, size), torch.ones(1, size))
    assert "dropping what is on the device already" in str(error)
    del fillers


def test_a_weight_that_lies_there_is_found_by_its_parameters_and_spec(board_device: Any) -> None:
    store, model, spec = board_device.resource(WeightStore), Feedforward(), Spec((32, 64), "bfloat16", "TILE")
    address = model.up.weight.data_ptr()
    assert store.find(spec, [address]) is None
    compiled = torch.compile(model, backend="ttnn", options={"device": BOARD})
    with torch.no_grad():
        compiled(torch.randn(4, 32))
    found = store.find(spec, [address])
    assert tuple(found.shape) == (32, 64) and found.is_allocated()
    assert store.find(Spec((32, 64), "bfloat8_b", "TILE"), [address]) is None
    assert store.find(spec, [model.down.weight.data_ptr()]) is None


def test_a_full_l1_is_no_full_dram() -> None:
    words = "Out of Memory: Not enough space to allocate 64 B L1 buffer\n backtrace: slice_in_DRAM()"
    with pytest.raises(RuntimeError, match="L1 buffer"), dram_or_error():
        raise RuntimeError(words)
    with pytest.raises(MemoryError, match="DRAM buffer"), dram_or_error():
        raise RuntimeError(words.replace("L1", "DRAM"))


class Convolved(nn.Module):
    """An image or volume through convolutions; a weight would take a tile for each of its kernels on the device."""

    def __init__(self, convolutions: list[nn.Module]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        for convolution in convolutions:
            convolution.weight = nn.Parameter(torch.full((1,), 0.001).expand(convolution.weight.shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for convolution in self.convolutions:
            x = convolution(x)
        return x.relu()


class Masked(nn.Module):
    """Bits of one number by columns of others, which stay on the host; on the device each would take 4 GiB of tiles."""

    def __init__(self) -> None:
        super().__init__()
        for name in "abcdefgh":
            self.register_buffer(name, torch.ones(1, dtype=torch.int64).expand(1 << 20, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        masked = [(x & getattr(self, name)).sum() for name in "abcdefgh"]
        return torch.stack(masked).float().relu()


HOST_MODELS: dict[str, tuple[Any, Any]] = {
    "transposed convolutions of volumes in groups": (
        lambda: Convolved([nn.ConvTranspose3d(512, 512, (3, 1, 1), padding=(1, 0, 0), groups=2) for _ in range(10)]),
        lambda: torch.rand(1, 512, 3, 1, 1),
    ),
    "grouped convolutions": (
        lambda: Convolved([nn.Conv2d(8192, 8192, 3, padding=1, groups=256) for _ in range(2)]),
        lambda: torch.rand(1, 8192, 2, 2),
    ),
    "integers": (Masked, lambda: torch.full((1, 1, 1), 3)),
}


@pytest.mark.parametrize("name", HOST_MODELS)
def test_weights_that_only_the_host_reads_need_no_memory_of_the_device(board_device: Any, name: str) -> None:
    make, inputs = HOST_MODELS[name]
    model, x = make(), inputs()
    with torch.no_grad(), tt_dynamo.record() as reports:
        got = torch.compile(model, backend="ttnn", options={"device": BOARD})(x)
        torch.testing.assert_close(got, model(x), rtol=0.02, atol=0.02)
    assert reports[0].fallbacks and reports[0].weight_bytes < 1 << 20


def test_a_product_that_does_not_fit_is_an_error_beside_what_the_host_computes(board_device: Any) -> None:
    size = 16384
    count = memory(board_device).total // (2 * size * size) + 1
    volume = nn.Conv3d(4, 4, 3, padding=1)

    class Both(Products):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = volume(x.view(1, 4, 4, 4, -1))
            return super().forward(y.reshape(1, size))

    refused(Both(count, size), torch.zeros(1, size))
